-- SPDX-License-Identifier: BSD-3-Clause
-- What LISTEN, IPsec and GRE with checksums need beside ports: see 0001 for how to read this.

-- The highest Bind ID given in a registration, so that none is given twice (RFC 3103 §8.5).
ALTER TABLE registration ADD COLUMN last_bind_id BIGINT NOT NULL DEFAULT 0;
UPDATE registration SET last_bind_id = given.last
FROM (
    SELECT owner_realm, owner_address, client_id, MAX(bind_id) AS last FROM tenure
    GROUP BY owner_realm, owner_address, client_id
) AS given
WHERE given.owner_realm = registration.realm AND given.owner_address = registration.address
    AND given.client_id = registration.client_id;

-- IKE on port 500 by cookie (RFC 3104 §6.1), and the initiators listened for (kind 4 in tenure_range and
-- holding, less 2^63 as cookies are).
ALTER TABLE tenure ADD COLUMN ike INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tenure ADD COLUMN identities TEXT;

-- Ports for which another binding of the same host stands at present: it listens on them.
ALTER TABLE selector ADD COLUMN lent TEXT NOT NULL DEFAULT '';

ALTER TABLE binding ADD COLUMN tunnel_checksum INTEGER NOT NULL DEFAULT 0;
