-- SPDX-License-Identifier: BSD-3-Clause
-- A million plain leases (border/plain.py): one row of numbers for each, where 0001 has five; and
-- a host's last answer beside its registration.

-- Hosts that may hold bindings (RFC 3103 §6), each with its last UDP request and the answer, for the copy that may
-- still come (RFC 3103 §10.1): NULL where there was none, or where ``answer`` still has it.
CREATE TABLE host (
    realm         BIGINT NOT NULL,            -- number of the near realm
    address       BYTEA NOT NULL,             -- the host's private address
    client_id     BIGINT NOT NULL UNIQUE,
    expires_at    DOUBLE PRECISION NOT NULL,
    local_policy  INTEGER NOT NULL,
    remote_policy INTEGER NOT NULL,
    last_bind_id  BIGINT NOT NULL,            -- the highest given in this registration (RFC 3103 §8.5)
    port          INTEGER,
    counter       BIGINT,
    request       BYTEA,
    answer        BYTEA,
    PRIMARY KEY (realm, address)
) WITHOUT ROWID;
INSERT INTO host (realm, address, client_id, expires_at, local_policy, remote_policy, last_bind_id)
SELECT realm, address, client_id, expires_at, local_policy, remote_policy, last_bind_id FROM registration;
CREATE INDEX host_due ON host (expires_at);
DROP TABLE registration;

-- The order of granting, over all tables of tenures.
CREATE TABLE granting (last BIGINT NOT NULL);
INSERT INTO granting SELECT COALESCE(MAX(number), 0) FROM tenure;

-- What the tunnels of plain leases have in common.
CREATE TABLE way (
    number INTEGER PRIMARY KEY,
    local  BYTEA NOT NULL,                    -- our end
    kind   INTEGER NOT NULL,                  -- 1 IP in IP, 2 GRE
    mtu    INTEGER NOT NULL,
    admit  INTEGER NOT NULL                   -- 0 anyone, 1 who has been contacted
);

-- Plain leases that are held. A place is a realm's number (less than 2^15), an IPv4 address and a port in one
-- number: realm * 2^48 + address * 2^16 + port.
CREATE TABLE plain (
    place      INTEGER PRIMARY KEY,           -- of the first port
    last       BIGINT NOT NULL,               -- place of the last port
    near       BIGINT NOT NULL,               -- number of the owner's realm
    owner      BIGINT NOT NULL,               -- its IPv4 address
    bind_id    BIGINT NOT NULL,
    client_id  BIGINT NOT NULL,
    method     INTEGER NOT NULL,
    way        INTEGER NOT NULL REFERENCES way (number),
    scale      INTEGER NOT NULL,              -- as in tenure_range
    number     BIGINT NOT NULL,               -- in the order of granting
    granted_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL,
    CHECK (place <= last)
);
CREATE UNIQUE INDEX plain_held ON plain (near, owner, bind_id);
CREATE INDEX plain_due ON plain (expires_at);

-- Plain leases that have ended, in the order in which who-had looks for them.
CREATE TABLE past (
    address    BIGINT NOT NULL,               -- IPv4
    scale      INTEGER NOT NULL,
    first      INTEGER NOT NULL,
    number     BIGINT NOT NULL,
    last       INTEGER NOT NULL,
    realm      BIGINT NOT NULL,
    near       BIGINT NOT NULL,
    owner      BIGINT NOT NULL,
    bind_id    BIGINT NOT NULL,
    client_id  BIGINT NOT NULL,
    granted_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL,
    ended_at   DOUBLE PRECISION NOT NULL,
    ending     TEXT NOT NULL,
    PRIMARY KEY (address, scale, first, number)
) WITHOUT ROWID;
CREATE INDEX past_ended ON past (ended_at);

CREATE INDEX tenure_due ON tenure (expires_at) WHERE ended_at IS NULL;
