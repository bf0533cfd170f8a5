-- SPDX-License-Identifier: BSD-3-Clause
-- Leases and their history. Written so that SQLite and PostgreSQL both read it.
--
-- Addresses are octets in network order: 4, 8 or 16 of them say which family. Times are
-- seconds since 1970; "Infinity" is the deadline of what is not leased. A lease and its
-- history are *one* row of ``tenure`` while the lease stands; that they contradict each
-- other cannot be written down.

-- Hosts that may hold bindings (RFC 3103 §6).
CREATE TABLE registration (
    realm         BIGINT NOT NULL,            -- number of the near realm
    address       BYTEA NOT NULL,             -- the host's private address
    client_id     BIGINT NOT NULL UNIQUE,
    expires_at    DOUBLE PRECISION NOT NULL,
    local_policy  INTEGER NOT NULL,
    remote_policy INTEGER NOT NULL,
    PRIMARY KEY (realm, address)
);

-- Who held what, from when to when. Never deleted.
CREATE TABLE tenure (
    number        INTEGER PRIMARY KEY,        -- in the order of granting
    owner_realm   BIGINT NOT NULL,
    owner_address BYTEA NOT NULL,
    bind_id       BIGINT NOT NULL,
    client_id     BIGINT NOT NULL,
    method        INTEGER NOT NULL,           -- 1 RSA-IP, 2 RSAP-IP, 3 RSIPSEC
    realm         BIGINT NOT NULL,
    address       BYTEA NOT NULL,
    length        INTEGER NOT NULL,           -- bits of the prefix
    ports         TEXT,                       -- "80,10000-10063"; with spis NULL too: all of the prefix
    spis          TEXT,
    granted_at    DOUBLE PRECISION NOT NULL,
    expires_at    DOUBLE PRECISION NOT NULL,  -- the last deadline given
    ended_at      DOUBLE PRECISION,           -- NULL: held
    ending        TEXT,                       -- freed, expired, revoked
    CHECK ((ended_at IS NULL) = (ending IS NULL))
);
CREATE UNIQUE INDEX tenure_held ON tenure (owner_realm, owner_address, bind_id) WHERE ended_at IS NULL;
CREATE INDEX tenure_ended ON tenure (ended_at);

-- The index of who-had: a row for each contiguous range of a tenure. ``scale`` is the least
-- n with at most 2^n numbers in the range: a range of that scale that holds p begins within
-- p - 2^n + 1 .. p, so a search touches no range far from p.
CREATE TABLE tenure_range (
    tenure  BIGINT NOT NULL REFERENCES tenure (number),
    address BYTEA NOT NULL,
    length  INTEGER NOT NULL,
    kind    INTEGER NOT NULL,                 -- 0 all of the prefix, 1 ports, 2 SPIs, 3 cookies
    scale   INTEGER NOT NULL,
    first   BIGINT NOT NULL,                  -- a cookie is kept less 2^63, to fit with its order
    last    BIGINT NOT NULL,
    CHECK (first <= last)
);
CREATE INDEX tenure_range_search ON tenure_range (address, length, kind, scale, first);

-- What a held tenure needs beyond its history to work again after a restart.
CREATE TABLE binding (
    tenure        INTEGER PRIMARY KEY REFERENCES tenure (number),
    tunnel_realm  BIGINT NOT NULL,
    tunnel_local  BYTEA NOT NULL,
    tunnel_remote BYTEA NOT NULL,
    tunnel_kind   INTEGER NOT NULL,           -- 1 IP in IP, 2 GRE
    tunnel_mtu    INTEGER NOT NULL,
    device        TEXT
);

CREATE TABLE selector (
    tenure         BIGINT NOT NULL REFERENCES binding (tenure) ON DELETE CASCADE,
    ordinal        INTEGER NOT NULL,
    kind           INTEGER,                   -- NULL: the prefix whole
    numbers        TEXT NOT NULL,
    remote_address BYTEA,                     -- NULL: any peer
    remote_length  INTEGER,
    remote_port    INTEGER,
    admit          INTEGER NOT NULL,          -- 0 anyone, 1 who has been contacted
    PRIMARY KEY (tenure, ordinal)
);

-- What is held now, range by range: nothing twice.
CREATE TABLE holding (
    realm   BIGINT NOT NULL,
    address BYTEA NOT NULL,
    length  INTEGER NOT NULL,
    kind    INTEGER NOT NULL,
    first   BIGINT NOT NULL,
    last    BIGINT NOT NULL,
    tenure  BIGINT NOT NULL REFERENCES binding (tenure) ON DELETE CASCADE,
    PRIMARY KEY (realm, address, length, kind, first),
    CHECK (first <= last)
);
CREATE INDEX holding_tenure ON holding (tenure);

-- The last UDP request of a host and its answer, for the copy that may still come (RFC 3103 §10.1).
CREATE TABLE answer (
    realm       BIGINT NOT NULL,
    address     BYTEA NOT NULL,
    port        INTEGER NOT NULL,
    counter     BIGINT NOT NULL,
    request     BYTEA NOT NULL,
    answer      BYTEA NOT NULL,
    departed_at DOUBLE PRECISION,             -- when its host deregistered; NULL: it has not
    PRIMARY KEY (realm, address)
);
CREATE INDEX answer_departed ON answer (departed_at);
