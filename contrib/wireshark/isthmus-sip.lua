-- SPDX-License-Identifier: BSD-3-Clause
--
-- Wireshark and tshark learn the Simple Internet Protocol of RFC 8507 (not RFC 3261's) and IPAE.
--
--     tshark -X lua_script:isthmus-sip.lua -r capture.pcapng
--     cp isthmus-sip.lua ~/.local/lib/wireshark/plugins/
--
-- SIP is version 6 under EtherType 0x0800. IPAE is SIP under IPv4 protocol 41, told from IPv6 by its length.
-- Whatever is neither goes on to the dissector that had it before, though frame.protocols names this one, too.
-- Filters: simpleip, simpleip.src, simpleip.dst, simpleip.hop_limit, simpleip.sr, simpleip.frag, simpleip.icmp,
-- ipae, ...; the columns show the IPv6 addresses of below, and the info column begins with those of SIP.
--
-- What SIP carries is shown to the dissectors of TCP, UDP and the rest between IPv6 addresses with
-- checksum-neutral prefixes, so that they verify the checksum by the right pseudo-header: the full one under
-- fd49:5041:4500:6d74::/64, and the compatible one, where a C bit is set, under fd53:4950:4300::/48.

local sip = Proto("simpleip", "Simple Internet Protocol (RFC 8507)")
local ipae = Proto("ipae", "IP Address Encapsulation")

local ORDERS = { { 1, "deering: payload type, hop limit (RFC 8507)", 0 }, { 2, "seed: hop limit, payload type", 1 } }
local LAYOUTS = { { 1, "sip92 (RFC 8507)", 0 }, { 2, "sipp94 (draft-ietf-sipp-spec-00)", 1 } }
sip.prefs.order = Pref.enum("Header order", 0, "Which comes first in octets 6 and 7", ORDERS, false)
sip.prefs.layout = Pref.enum("Option layout", 0, "Where the fields of option headers are", LAYOUTS, false)

local TYPES = {
    [1] = "ICMP", [2] = "IGMP", [4] = "IPv4", [6] = "TCP", [17] = "UDP", [41] = "SIP",
    [43] = "Source routing", [44] = "Fragmentation", [50] = "ESP", [51] = "AH",
}
local ICMP_TYPES = {
    [0] = "Echo reply", [3] = "Destination unreachable", [5] = "Redirect", [8] = "Echo",
    [9] = "Router advertisement", [10] = "Router solicitation", [11] = "Time exceeded", [12] = "Parameter problem",
}
local UNREACHABLE = {
    [1] = "Destination address unreachable", [2] = "Payload type unknown", [3] = "Port unreachable",
    [4] = "Packet too big", [5] = "Source route failed", [7] = "Destination address unknown",
    [8] = "Source host isolated", [13] = "Communication administratively prohibited",
}

local f = {
    version = ProtoField.uint8("simpleip.version", "Version", base.DEC, nil, 0xF0),
    reserved = ProtoField.uint32("simpleip.reserved", "Reserved", base.HEX, nil, 0x0FFFFFFF),
    length = ProtoField.uint16("simpleip.length", "Payload Length"),
    kind = ProtoField.uint8("simpleip.type", "Payload Type", base.DEC, TYPES),
    hop_limit = ProtoField.uint8("simpleip.hop_limit", "Hop Limit"),
    src = ProtoField.string("simpleip.src", "Source Address"),
    dst = ProtoField.string("simpleip.dst", "Destination Address"),
    src_hex = ProtoField.uint64("simpleip.src_hex", "Source Address", base.HEX),
    dst_hex = ProtoField.uint64("simpleip.dst_hex", "Destination Address", base.HEX),
    src_c = ProtoField.bool("simpleip.src_c", "Source is IPv4 only (C)"),
    dst_c = ProtoField.bool("simpleip.dst_c", "Destination is IPv4 only (C)"),
    final = ProtoField.string("simpleip.final", "Final Destination"),
    sr = ProtoField.bytes("simpleip.sr", "Source Routing", base.NONE),
    sr_num = ProtoField.uint8("simpleip.sr.num", "Num Addrs"),
    sr_next = ProtoField.uint8("simpleip.sr.next", "Next Addr"),
    sr_type = ProtoField.uint8("simpleip.sr.type", "Payload Type", base.DEC, TYPES),
    sr_address = ProtoField.string("simpleip.sr.address", "Address"),
    frag = ProtoField.bytes("simpleip.frag", "Fragmentation", base.NONE),
    frag_id = ProtoField.uint32("simpleip.frag.id", "Identification", base.HEX),
    frag_more = ProtoField.bool("simpleip.frag.more", "More"),
    frag_offset = ProtoField.uint16("simpleip.frag.offset", "Fragment Offset (octets)"),
    frag_type = ProtoField.uint8("simpleip.frag.type", "Payload Type", base.DEC, TYPES),
    icmp = ProtoField.bytes("simpleip.icmp", "ICMP over SIP", base.NONE),
    icmp_type = ProtoField.uint8("simpleip.icmp.type", "Type", base.DEC, ICMP_TYPES),
    icmp_code = ProtoField.uint8("simpleip.icmp.code", "Code"),
    icmp_checksum = ProtoField.uint16("simpleip.icmp.checksum", "Checksum", base.HEX),
    icmp_rule = ProtoField.string("simpleip.icmp.checksum.rule", "Checksum is right by"),
    icmp_mtu = ProtoField.uint16("simpleip.icmp.mtu", "Next-Hop MTU"),
    icmp_pointer = ProtoField.uint16("simpleip.icmp.pointer", "Pointer"),
    icmp_id = ProtoField.uint16("simpleip.icmp.id", "Identifier", base.HEX),
    icmp_seq = ProtoField.uint16("simpleip.icmp.seq", "Sequence Number"),
    icmp_router = ProtoField.string("simpleip.icmp.router", "Router"),
    icmp_preference = ProtoField.int32("simpleip.icmp.preference", "Preference Level"),
    src_port = ProtoField.uint16("simpleip.quoted.src_port", "Quoted Source Port"),
    dst_port = ProtoField.uint16("simpleip.quoted.dst_port", "Quoted Destination Port"),
    igmp_type = ProtoField.uint8("simpleip.igmp.type", "IGMP Type", base.DEC, { "Query", "Report" }, 0x0F),
    igmp_group = ProtoField.string("simpleip.igmp.group", "Multicast Address"),
}
local all = {}
for _, field in pairs(f) do
    all[#all + 1] = field
end
sip.fields = all
local cut = ProtoExpert.new("simpleip.cut", "Cut short", expert.group.MALFORMED, expert.severity.WARN)
local neither = ProtoExpert.new("ipae.neither", "Protocol 41 with neither SIP nor IPv6", expert.group.MALFORMED,
    expert.severity.WARN)
local wrong = ProtoExpert.new("simpleip.icmp.wrong", "Checksum fits no pseudo-header", expert.group.CHECKSUM,
    expert.severity.WARN)
sip.experts = { cut, wrong }
ipae.experts = { neither }

local ethertypes, protocols = DissectorTable.get("ethertype"), DissectorTable.get("ip.proto")
local ipv4, ipv6 = ethertypes:get_dissector(0x0800), protocols:get_dissector(41)
local data = Dissector.get("data")
local ip_len, ip_hdr_len, icmp_type = Field.new("ip.len"), Field.new("ip.hdr_len"), Field.new("icmp.type")
local HEADER, QUOTED, MOST_OPTIONS = 24, 8, 4

-- Addresses -------------------------------------------------------------------------------------------------

-- An address in the notation of the seed, section 7.
local function text_of(range)
    local o = {}
    for at = 0, 7 do
        o[at] = range(at, 1):uint()
    end
    local c = o[0] >= 128 and "c" or ""
    return string.format("%s%d.%d.%d.%d/%d.%d.%d.%d", c, o[0] % 128, o[1], o[2], o[3], o[4], o[5], o[6], o[7])
end

local function c_bit(range)
    return range(0, 1):uint() >= 128
end

local function fold(total)
    while total > 0xFFFF do
        total = total % 0x10000 + math.floor(total / 0x10000)
    end
    return total
end

local function sum_of(range, from, length)
    local total = 0
    for at = from, from + length - 1 do
        total = total + range(at, 1):uint() * ((at - from) % 2 == 0 and 256 or 1)
    end
    return fold(total)
end

-- The IPv6 address whose pseudo-header adds up to what the rule wants.
local function neutral(range, compatible)
    local w = {}
    for at = 0, 3 do
        w[at] = range(at * 2, 2):uint()
    end
    local prefix = "fd49:5041:4500:6d74"
    if compatible then
        local word = 0xFFFF - fold(0xFD53 + 0x4950 + 0x4300 + w[0] + w[1])
        prefix = string.format("fd53:4950:4300:%x", word)
    end
    return Address.ipv6(string.format("%s:%x:%x:%x:%x", prefix, w[0], w[1], w[2], w[3]))
end

-- ICMP and IGMP ---------------------------------------------------------------------------------------------

local dissect

-- By which pseudo-headers a checksum is right: what isthmus decode calls checksum_fits.
local function rules(payload, ends, kind)
    local length = payload:len()
    local message = sum_of(payload, 0, length)
    local function low(range)
        return sum_of(range, 4, 4)
    end
    local function some(range)
        return c_bit(range) and low(range) or sum_of(range, 0, 8)
    end
    local pseudo = {
        { "ipv4", low(ends.src) + low(ends.dst) + kind + length },
        { "full", sum_of(ends.src, 0, 8) + sum_of(ends.dst, 0, 8) + kind + length },
        { "sip92", some(ends.src) + some(ends.dst) + kind * 256 + length },
        { "unsized", sum_of(ends.src, 0, 8) + sum_of(ends.dst, 0, 8) + kind },
    }
    local found = {}
    for _, each in ipairs(pseudo) do
        if fold(message + each[2]) == 0xFFFF then
            found[#found + 1] = each[1]
        end
    end
    return table.concat(found, ", ")
end

local function routers(payload, tree)
    local number, size = payload(4, 1):uint(), payload(5, 1):uint() * 4
    for index = 0, number - 1 do
        local at = 8 + index * size
        if size < 16 or at + 16 > payload:len() then
            tree:add_proto_expert_info(cut)
            return
        end
        tree:add(f.icmp_router, payload(at, 8), text_of(payload(at, 8)))
        tree:add(f.icmp_preference, payload(at + 8, 4))
    end
end

local function icmp(payload, pinfo, tree, ends, whole)
    if payload:len() < 8 then
        tree:add_proto_expert_info(cut)
        return
    end
    local kind, code = payload(0, 1):uint(), payload(1, 1):uint()
    local name = kind == 3 and UNREACHABLE[code] or ICMP_TYPES[kind] or "ICMP type " .. kind
    local branch = tree:add(f.icmp, payload(0, 8)):set_text("ICMP over SIP: " .. name)
    branch:add(f.icmp_type, payload(0, 1))
    branch:add(f.icmp_code, payload(1, 1))
    local item = branch:add(f.icmp_checksum, payload(2, 2))
    if whole then
        local right = rules(payload, ends, 1)
        item:add(f.icmp_rule, payload(2, 2), right)
        if right == "" then
            item:add_proto_expert_info(wrong)
        end
    end
    local quote = 8
    if kind == 3 and code == 4 then
        branch:add(f.icmp_mtu, payload(6, 2))
    elseif kind == 12 then
        branch:add(f.icmp_pointer, payload(6, 2))
    elseif kind == 0 or kind == 8 then
        branch:add(f.icmp_id, payload(4, 2))
        branch:add(f.icmp_seq, payload(6, 2))
    elseif kind == 9 then
        routers(payload, branch)
    elseif kind == 5 and payload:len() >= 16 then
        branch:add(f.icmp_router, payload(8, 8), text_of(payload(8, 8)))
        quote = 16
    end
    local is_error = kind == 3 or kind == 5 or kind == 11 or kind == 12
    if payload:len() > quote then
        local rest = payload(quote):tvb()
        if not is_error or ends.quoted then
            data:call(rest, pinfo, tree)
        elseif rest(0, 1):bitfield(0, 4) == 6 then
            dissect(rest, pinfo, branch, true)
        else
            ipv4:call(rest, pinfo, branch)
        end
    end
    if not ends.quoted then
        pinfo.cols.protocol = "SIP/ICMP"
        pinfo.cols.info = name
    end
end

local function igmp(payload, pinfo, tree)
    if payload:len() < 8 then
        tree:add_proto_expert_info(cut)
        return
    end
    tree:add(f.igmp_type, payload(0, 1))
    pinfo.cols.protocol = "SIP/IGMP"
    if payload(0, 1):bitfield(4, 4) == 2 and payload:len() >= 16 then
        tree:add(f.igmp_group, payload(8, 8), text_of(payload(8, 8)))
    end
end

-- Option headers --------------------------------------------------------------------------------------------

-- Each returns the payload type that follows and its own length, or nothing where it is cut short.
local function source_routing(range, tree, ends)
    local later = sip.prefs.layout == 1
    local num_at, next_at, type_at = later and 1 or 4, later and 2 or 5, later and 0 or 6
    if range:len() < 8 or range:len() < 8 + 8 * range(num_at, 1):uint() then
        return nil
    end
    local num, following = range(num_at, 1):uint(), range(next_at, 1):uint()
    local length = 8 + 8 * num
    local branch = tree:add(f.sr, range(0, length)):set_text(string.format("Source Routing: %d of %d", following, num))
    branch:add(f.sr_num, range(num_at, 1))
    branch:add(f.sr_next, range(next_at, 1))
    branch:add(f.sr_type, range(type_at, 1))
    for index = 0, num - 1 do
        local stop = range(8 + 8 * index, 8)
        branch:add(f.sr_address, stop, text_of(stop)):prepend_text(index == following and "Next: " or "")
    end
    if following < num then
        ends.dst = range(length - 8, 8)
    end
    return range(type_at, 1):uint(), length
end

local function fragmentation(range, tree, ends)
    if range:len() < 8 then
        return nil
    end
    local later = sip.prefs.layout == 1
    local id_at, place_at, type_at = later and 4 or 0, later and 2 or 4, later and 0 or 6
    local more, offset = range(place_at, 2):bitfield(2, 1), range(place_at, 2):bitfield(3, 13) * 8
    local branch = tree:add(f.frag, range(0, 8)):set_text(
        string.format("Fragmentation: %d%s", offset, more == 1 and ", more" or ""))
    branch:add(f.frag_id, range(id_at, 4))
    branch:add(f.frag_more, range(place_at, 2), more == 1)
    branch:add(f.frag_offset, range(place_at, 2), offset)
    branch:add(f.frag_type, range(type_at, 1))
    ends.part, ends.offset = more == 1 or offset > 0, offset
    return range(type_at, 1):uint(), 8
end

-- The whole packet ------------------------------------------------------------------------------------------

local function beginning(tvb, tree)
    local seed = sip.prefs.order == 1
    tree:add(f.version, tvb(0, 1))
    tree:add(f.reserved, tvb(0, 4))
    tree:add(f.length, tvb(4, 2))
    tree:add(f.kind, tvb(seed and 7 or 6, 1))
    tree:add(f.hop_limit, tvb(seed and 6 or 7, 1))
    return tvb(seed and 7 or 6, 1):uint(), tvb(seed and 6 or 7, 1):uint()
end

local function addresses(tvb, tree)
    for _, each in ipairs({ { "src", 8 }, { "dst", 16 } }) do
        local name, range = each[1], tvb(each[2], 8)
        tree:add(f[name], range, text_of(range))
        tree:add(f[name .. "_hex"], range)
        tree:add(f[name .. "_c"], range, c_bit(range))
    end
end

-- What follows the option headers, by the dissector that it has.
local function inside(payload, kind, pinfo, root, tree, ends, whole)
    if ends.part and ends.offset > 0 then
        data:call(payload, pinfo, root)
    elseif kind == 1 then
        icmp(payload, pinfo, tree, ends, whole)
    elseif kind == 2 then
        igmp(payload, pinfo, tree)
    elseif kind == 41 then
        dissect(payload, pinfo, root, ends.quoted)
    elseif ends.quoted then
        -- The transports' dissectors would take it for a packet that was sent here.
        if (kind == 6 or kind == 17) and payload:len() >= 4 then
            tree:add(f.src_port, payload(0, 2))
            tree:add(f.dst_port, payload(2, 2))
        end
    elseif not protocols:try(kind, payload, pinfo, root) then
        data:call(payload, pinfo, root)
    end
end

local function pass_on(tvb, at, kind, pinfo, root, tree, ends, whole)
    if tvb:len() <= at then
        return
    end
    local compatible = c_bit(ends.src) or c_bit(ends.dst)
    if kind ~= 4 and not ends.quoted then
        pinfo.src, pinfo.dst = neutral(ends.src, compatible), neutral(ends.dst, compatible)
    end
    inside(tvb(at):tvb(), kind, pinfo, root, tree, ends, whole and not ends.part)
end

-- Dissect a SIP packet; one that is quoted in an error may be cut short.
dissect = function(tvb, pinfo, root, quoted)
    if tvb:len() < (quoted and QUOTED or HEADER) then
        return 0
    end
    local tree = root:add(sip, tvb(0, math.min(HEADER, tvb:len())))
    local kind, hop_limit = beginning(tvb, tree)
    if tvb:len() < HEADER then
        tree:append_text(", quoted in " .. tvb:len() .. " octets")
        return tvb:len()
    end
    addresses(tvb, tree)
    local total = HEADER + tvb(4, 2):uint()
    local whole = total <= tvb:len()
    if not whole and not quoted then
        tree:add_proto_expert_info(cut)
    end
    tvb = tvb(0, math.min(total, tvb:len())):tvb()
    local ends = { src = tvb(8, 8), dst = tvb(16, 8), quoted = quoted }
    local label = text_of(ends.src) .. " > " .. text_of(ends.dst)
    tree:append_text(string.format(", %s, hop limit %d", label, hop_limit))
    if not quoted then
        pinfo.cols.protocol = "SIP"
        pinfo.cols.info = "payload type " .. kind
    end
    local at, number = HEADER, 0
    while (kind == 43 or kind == 44) and not ends.part and number < MOST_OPTIONS do
        local following, length
        if at < tvb:len() then
            local read = kind == 43 and source_routing or fragmentation
            following, length = read(tvb(at), tree, ends)
        end
        if following == nil then
            tree:add_proto_expert_info(cut)
            return tvb:len()
        end
        kind, at, number = following, at + length, number + 1
    end
    tree:add(f.final, ends.dst, text_of(ends.dst)):set_generated()
    pass_on(tvb, at, kind, pinfo, root, tree, ends, whole)
    if not quoted then
        pinfo.cols.info:prepend(label .. ": ")
    end
    return tvb:len()
end

function sip.dissector(tvb, pinfo, root)
    if tvb:len() > 0 and tvb(0, 1):bitfield(0, 4) == 6 then
        return dissect(tvb, pinfo, root, false)
    end
    return ipv4:call(tvb, pinfo, root)
end

-- Protocol 41: the lengths tell, exactly.
function ipae.dissector(tvb, pinfo, root)
    local lengths, headers = { ip_len() }, { ip_hdr_len() }
    if tvb:len() < 6 or #lengths == 0 or tvb(0, 1):bitfield(0, 4) ~= 6 then
        return ipv6:call(tvb, pinfo, root)
    end
    local difference = lengths[#lengths].value - headers[#headers].value - tvb(4, 2):uint()
    if difference == HEADER then
        root:add(ipae, tvb(0, math.min(HEADER, tvb:len()))):set_hidden()
        return dissect(tvb, pinfo, root, icmp_type() ~= nil)
    elseif difference ~= 40 then
        root:add(ipae, tvb()):add_proto_expert_info(neither)
    end
    return ipv6:call(tvb, pinfo, root)
end

ethertypes:add(0x0800, sip)
protocols:add(41, ipae)
