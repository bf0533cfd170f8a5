-- SPDX-License-Identifier: BSD-3-Clause
-- What keeps places secret (border/place.py): drawn once, with this table, so that hosts have the same places after a
-- restart. gen_random_bytes is PostgreSQL's (pgcrypto); the SQLite store brings one along.

CREATE TABLE place_key (octets BYTEA NOT NULL);
INSERT INTO place_key VALUES (gen_random_bytes(32));
