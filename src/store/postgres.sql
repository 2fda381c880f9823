-- The tables and functions of the PostgreSQL store, for those who run their own migrations. Otherwise
-- `PostgresStore::migrate` makes them. With another table name, put it in the place of `sessions` in
-- every name and in `'sessions'`. With a schema, put it before every `"sessions…"` and
-- `cloakroom_schema`, as in `"app"."sessions"`. It takes PostgreSQL 11 or later and a database in UTF-8.

CREATE TABLE IF NOT EXISTS cloakroom_schema (
    "table" text COLLATE "C" PRIMARY KEY,
    version integer NOT NULL
);

INSERT INTO cloakroom_schema ("table", version) VALUES ('sessions', 1);

-- The order of the columns counts: the functions take a row of this type.
CREATE TABLE "sessions" (
    id uuid PRIMARY KEY,
    -- Without a sign: 2^63 and above are negative here.
    version bigint NOT NULL,
    digest bytea NOT NULL,
    previous_digest bytea,
    previous_until timestamptz,
    owner text COLLATE "C",
    created timestamptz NOT NULL,
    authenticated timestamptz,
    renewed timestamptz NOT NULL,
    seen timestamptz NOT NULL,
    expires timestamptz NOT NULL,
    -- Milliseconds.
    idle bigint,
    absolute bigint,
    data bytea NOT NULL
);

CREATE INDEX ON "sessions" (expires);
CREATE INDEX ON "sessions" (owner) WHERE owner IS NOT NULL;

-- When an owner's sessions were last revoked except `kept`, which is all zeros if none was spared.
-- Forgotten after an hour.
CREATE TABLE "sessions_revoked" (
    owner text COLLATE "C" NOT NULL,
    kept uuid NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (owner, kept)
);

CREATE INDEX ON "sessions_revoked" (at);

-- Functions, so that an operation is one trip and yet several steps. They are VOLATILE, and run where
-- transactions are READ COMMITTED: each step sees what was committed before it began, also while the
-- step before it waited for a lock.

-- The lock of an owner, for one sign-in or revocation at a time, until the end of the transaction.
CREATE FUNCTION "sessions_lock"(whose text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'transactions have to be READ COMMITTED; set it with ALTER ROLE and default_transaction_isolation'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(whose, '"sessions"'::regclass::oid::bigint));
END $$;

-- Compare-and-swap, which keeps a touch that came in since `given` was loaded. With `conflict`, `stored` is the
-- record as it is.
CREATE FUNCTION "sessions_update"(
    given "sessions", expected bigint, moment timestamptz, OUT answer text, OUT stored "sessions"
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE "sessions" AS s SET
        version = given.version, digest = given.digest,
        previous_digest = given.previous_digest, previous_until = given.previous_until,
        owner = given.owner, created = given.created, authenticated = given.authenticated,
        renewed = given.renewed,
        seen = CASE WHEN given.seen < moment AND given.seen < s.seen THEN s.seen ELSE given.seen END,
        expires = CASE WHEN given.seen < moment AND given.seen < s.seen
            THEN greatest(s.expires, given.expires) ELSE given.expires END,
        idle = given.idle, absolute = given.absolute, data = given.data
    WHERE s.id = given.id AND s.expires > moment AND s.version = expected;
    IF FOUND THEN
        answer := 'done';
        RETURN;
    END IF;
    SELECT s.* INTO stored FROM "sessions" AS s WHERE s.id = given.id AND s.expires > moment;
    answer := CASE WHEN FOUND THEN 'conflict' ELSE 'gone' END;
END $$;

-- A new session if `expected` is null, else compare-and-swap, if neither a revocation since `began` nor
-- the limit `most` forbid it. Those beyond the limit are deleted if `evict`.
CREATE FUNCTION "sessions_sign_in"(
    given "sessions", expected bigint, moment timestamptz,
    began timestamptz, most bigint, evict boolean, OUT answer text, OUT stored "sessions"
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    others bigint;
    oldest uuid[];
BEGIN
    PERFORM "sessions_lock"(given.owner);

    SELECT s.* INTO stored FROM "sessions" AS s
        WHERE s.id = given.id AND s.expires > moment FOR UPDATE;
    IF FOUND AND expected IS NULL THEN
        answer := 'taken';
        RETURN;
    ELSIF FOUND AND stored.version <> expected THEN
        answer := 'conflict';
        RETURN;
    ELSIF NOT FOUND AND expected IS NOT NULL THEN
        answer := 'gone';
        RETURN;
    END IF;

    IF EXISTS (
        SELECT FROM "sessions_revoked" AS r
            WHERE r.owner = given.owner AND r.kept <> given.id AND r.at >= began
    ) THEN
        answer := 'revoked';
        RETURN;
    END IF;

    IF most IS NOT NULL THEN
        SELECT count(*) INTO others FROM "sessions" AS s
            WHERE s.owner = given.owner AND s.id <> given.id AND s.expires > moment;
        IF others >= most AND NOT evict THEN
            answer := 'full';
            RETURN;
        END IF;
        oldest := ARRAY(
            SELECT s.id FROM "sessions" AS s
                WHERE s.owner = given.owner AND s.id <> given.id AND s.expires > moment
                ORDER BY s.authenticated NULLS FIRST, s.id
                LIMIT greatest(others - most + 1, 0)
        );
    END IF;

    INSERT INTO "sessions" AS s VALUES (given.*)
        ON CONFLICT (id) DO UPDATE SET
            version = given.version, digest = given.digest,
            previous_digest = given.previous_digest, previous_until = given.previous_until,
            owner = given.owner, created = given.created, authenticated = given.authenticated,
            renewed = given.renewed, seen = given.seen, expires = given.expires,
            idle = given.idle, absolute = given.absolute, data = given.data
        -- A live one is that with the expected version, which is locked; or it was made meanwhile.
        WHERE s.expires <= moment OR expected IS NOT NULL;
    IF NOT FOUND THEN
        answer := 'taken';
        RETURN;
    END IF;
    DELETE FROM "sessions" AS s WHERE s.id = ANY (oldest) AND s.owner = given.owner;
    answer := 'done';
END $$;

CREATE FUNCTION "sessions_delete_by_owner"(whose text, spared uuid, moment timestamptz)
RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    theirs uuid[];
    deleted bigint;
BEGIN
    -- Either a sign-in is first or this, and the other sees what it did.
    PERFORM "sessions_lock"(whose);
    -- By a clock that is behind, an earlier time may come later.
    INSERT INTO "sessions_revoked" AS r (owner, kept, at)
        VALUES (whose, coalesce(spared, '00000000-0000-0000-0000-000000000000'), moment)
        ON CONFLICT (owner, kept) DO UPDATE SET at = greatest(r.at, EXCLUDED.at);
    -- In the order in which all are deleted, so that the two never wait for each other.
    theirs := ARRAY(
        SELECT s.id FROM "sessions" AS s
            WHERE s.owner = whose AND s.id IS DISTINCT FROM spared ORDER BY s.id FOR UPDATE
    );
    WITH gone AS (DELETE FROM "sessions" AS s WHERE s.id = ANY (theirs) RETURNING s.expires)
        SELECT count(*) FILTER (WHERE expires > moment) INTO deleted FROM gone;
    RETURN deleted;
END $$;
