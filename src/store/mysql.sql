-- The tables and procedures of the MySQL store, for those who run their own migrations: with the
-- command-line clients `mysql` or `mariadb`, which read `DELIMITER`. Otherwise `MysqlStore::migrate`
-- makes them. With another table name, put it in the place of every `sessions`. It takes MySQL 8.0 or
-- MariaDB 10.6, or later ones. It may be run again if it ended half-way.

DELIMITER //

-- What the procedures are made with is what they run with.
SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'
//

CREATE TABLE IF NOT EXISTS `cloakroom_schema` (
    `table` VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    version INT NOT NULL
) ENGINE = InnoDB
//

-- Version 0: begun, and not all there yet.
INSERT INTO `cloakroom_schema` (`table`, version) VALUES ('sessions', 0)
    ON DUPLICATE KEY UPDATE version = 0
//

-- Times and durations are in milliseconds, times since 1970 in UTC: FROM_UNIXTIME(expires / 1000).
CREATE TABLE IF NOT EXISTS `sessions` (
    id BINARY(16) NOT NULL PRIMARY KEY,
    version BIGINT UNSIGNED NOT NULL,
    digest BINARY(32) NOT NULL,
    previous_digest BINARY(32),
    previous_until BIGINT UNSIGNED,
    -- UTF-8, compared byte by byte.
    owner VARBINARY(255),
    created BIGINT UNSIGNED NOT NULL,
    authenticated BIGINT UNSIGNED,
    renewed BIGINT UNSIGNED NOT NULL,
    seen BIGINT UNSIGNED NOT NULL,
    idle BIGINT UNSIGNED,
    absolute BIGINT UNSIGNED,
    data LONGBLOB NOT NULL,
    expires BIGINT UNSIGNED NOT NULL,
    KEY expires (expires),
    KEY owner (owner)
) ENGINE = InnoDB
//

-- When an owner's sessions were last revoked except `kept`, which is all zeros if none was spared.
-- Forgotten after an hour. The row of an owner with the zeros is also the lock under which the owner
-- signs in or is revoked: `at` is null if it is nothing else.
CREATE TABLE IF NOT EXISTS `sessions_revoked` (
    owner VARBINARY(255) NOT NULL,
    kept BINARY(16) NOT NULL,
    at BIGINT UNSIGNED,
    PRIMARY KEY (owner, kept),
    KEY at (at)
) ENGINE = InnoDB
//

-- Procedures, so that an operation is one trip and yet several steps. They run where transactions are
-- READ COMMITTED: each step sees what was committed before it began, also while the step before it
-- waited for a lock, and locks no gaps. Rows are locked by the primary key, first that of the owner:
-- through another index they would be locked the other way round, and those of others with them.
-- What an operation answers is sent when its transaction is over. After an error the caller closes its
-- connection, which takes back what is open.

-- Compare-and-swap, which keeps a touch that came in since the record was loaded. Without an answer the
-- session is gone; with `conflict`, the rest is the record as it is.
DROP PROCEDURE IF EXISTS `sessions_update`
//

CREATE PROCEDURE `sessions_update`(
    IN given_id BINARY(16), IN given_version BIGINT UNSIGNED, IN given_digest BINARY(32),
    IN given_previous_digest BINARY(32), IN given_previous_until BIGINT UNSIGNED,
    IN given_owner VARBINARY(255), IN given_created BIGINT UNSIGNED,
    IN given_authenticated BIGINT UNSIGNED, IN given_renewed BIGINT UNSIGNED,
    IN given_seen BIGINT UNSIGNED, IN given_idle BIGINT UNSIGNED, IN given_absolute BIGINT UNSIGNED,
    IN given_data LONGBLOB, IN given_expires BIGINT UNSIGNED,
    IN expected BIGINT UNSIGNED, IN moment BIGINT UNSIGNED
) SQL SECURITY INVOKER
BEGIN
    UPDATE `sessions` FORCE INDEX (PRIMARY) SET
        version = given_version, digest = given_digest,
        previous_digest = given_previous_digest, previous_until = given_previous_until,
        owner = given_owner, created = given_created, authenticated = given_authenticated,
        renewed = given_renewed, idle = given_idle, absolute = given_absolute, data = given_data,
        expires = IF(given_seen < moment AND given_seen < seen,
            GREATEST(expires, given_expires), given_expires),
        -- After `expires`, which would else see what is assigned here.
        seen = IF(given_seen < moment AND given_seen < seen, seen, given_seen)
    WHERE id = given_id AND expires > moment AND version = expected;
    IF ROW_COUNT() > 0 THEN
        SELECT 'done' AS answer;
    ELSE
        SELECT 'conflict' AS answer, version, digest, previous_digest, previous_until, owner, created,
            authenticated, renewed, seen, idle, absolute, data, expires
        FROM `sessions` WHERE id = given_id AND expires > moment;
    END IF;
END
//

-- A new session if `expected` is null, else compare-and-swap, if neither a revocation since `began` nor
-- the limit `most` forbid it. Those beyond the limit are deleted if `evict`. Answers as the one above.
DROP PROCEDURE IF EXISTS `sessions_sign_in`
//

CREATE PROCEDURE `sessions_sign_in`(
    IN given_id BINARY(16), IN given_version BIGINT UNSIGNED, IN given_digest BINARY(32),
    IN given_previous_digest BINARY(32), IN given_previous_until BIGINT UNSIGNED,
    IN given_owner VARBINARY(255), IN given_created BIGINT UNSIGNED,
    IN given_authenticated BIGINT UNSIGNED, IN given_renewed BIGINT UNSIGNED,
    IN given_seen BIGINT UNSIGNED, IN given_idle BIGINT UNSIGNED, IN given_absolute BIGINT UNSIGNED,
    IN given_data LONGBLOB, IN given_expires BIGINT UNSIGNED,
    IN expected BIGINT UNSIGNED, IN moment BIGINT UNSIGNED,
    IN began BIGINT UNSIGNED, IN most BIGINT UNSIGNED, IN evict BOOLEAN
) SQL SECURITY INVOKER
BEGIN
    DECLARE answer VARCHAR(8) DEFAULT 'done';
    DECLARE present, others, revocations BIGINT UNSIGNED;
    DECLARE oldest BINARY(16);
    DECLARE CONTINUE HANDLER FOR NOT FOUND SET oldest = NULL;

    START TRANSACTION;
    -- One at a time for an owner, until the end of the transaction.
    INSERT INTO `sessions_revoked` (owner, kept, at)
        VALUES (given_owner, X'00000000000000000000000000000000', NULL)
        ON DUPLICATE KEY UPDATE owner = VALUES(owner);

    -- SELECT INTO, since InnoDB reads without locks in that form alone.
    SELECT s.version INTO present FROM `sessions` AS s
        WHERE s.id = given_id AND s.expires > moment FOR UPDATE;
    SELECT COUNT(*) INTO revocations FROM `sessions_revoked` AS r
        WHERE r.owner = given_owner AND r.kept <> given_id AND r.at >= began;
    IF most IS NOT NULL THEN
        SELECT COUNT(*) INTO others FROM `sessions` AS s
            WHERE s.owner = given_owner AND s.id <> given_id AND s.expires > moment;
    END IF;

    IF present IS NOT NULL AND expected IS NULL THEN
        SET answer = 'taken';
    ELSEIF present <> expected THEN
        SET answer = 'conflict';
    ELSEIF present IS NULL AND expected IS NOT NULL THEN
        SET answer = 'gone';
    ELSEIF revocations > 0 THEN
        SET answer = 'revoked';
    ELSEIF others >= most AND NOT evict THEN
        SET answer = 'full';
    ELSE
        BEGIN
            -- A live one with this id was made meanwhile.
            DECLARE EXIT HANDLER FOR 1062 SET answer = 'taken';
            DELETE s FROM `sessions` AS s FORCE INDEX (PRIMARY)
                WHERE s.id = given_id AND (s.expires <= moment OR expected IS NOT NULL);
            INSERT INTO `sessions` (
                id, version, digest, previous_digest, previous_until, owner, created, authenticated,
                renewed, seen, idle, absolute, data, expires
            ) VALUES (
                given_id, given_version, given_digest, given_previous_digest, given_previous_until,
                given_owner, given_created, given_authenticated, given_renewed, given_seen,
                given_idle, given_absolute, given_data, given_expires
            );
            WHILE others >= most DO
                SELECT s.id INTO oldest FROM `sessions` AS s
                    WHERE s.owner = given_owner AND s.id <> given_id AND s.expires > moment
                    ORDER BY s.authenticated, s.id LIMIT 1;
                DELETE s FROM `sessions` AS s FORCE INDEX (PRIMARY)
                    WHERE s.id = oldest AND s.owner = given_owner;
                SET others = others - 1;
            END WHILE;
        END;
    END IF;
    COMMIT;

    IF answer = 'conflict' THEN
        SELECT answer, s.version, s.digest, s.previous_digest, s.previous_until, s.owner, s.created,
            s.authenticated, s.renewed, s.seen, s.idle, s.absolute, s.data, s.expires
        FROM `sessions` AS s WHERE s.id = given_id AND s.expires > moment;
    ELSE
        SELECT answer;
    END IF;
END
//

DROP PROCEDURE IF EXISTS `sessions_delete_by_owner`
//

CREATE PROCEDURE `sessions_delete_by_owner`(
    IN whose VARBINARY(255), IN spared BINARY(16), IN moment BIGINT UNSIGNED
) SQL SECURITY INVOKER
BEGIN
    DECLARE theirs BINARY(16);
    DECLARE deleted BIGINT UNSIGNED DEFAULT 0;

    START TRANSACTION;
    -- The same lock as for a sign-in: one of them is first, and the other sees what it did.
    INSERT INTO `sessions_revoked` (owner, kept, at)
        VALUES (whose, X'00000000000000000000000000000000', NULL)
        ON DUPLICATE KEY UPDATE owner = VALUES(owner);
    -- By a clock that is behind, an earlier time may come later.
    INSERT INTO `sessions_revoked` (owner, kept, at)
        VALUES (whose, COALESCE(spared, X'00000000000000000000000000000000'), moment)
        ON DUPLICATE KEY UPDATE at = GREATEST(COALESCE(at, 0), VALUES(at));
    -- One by one: the other way, through the index of the owner, a logout would come the opposite way.
    SELECT MIN(s.id) INTO theirs FROM `sessions` AS s WHERE s.owner = whose AND NOT s.id <=> spared;
    WHILE theirs IS NOT NULL DO
        DELETE s FROM `sessions` AS s FORCE INDEX (PRIMARY)
            WHERE s.id = theirs AND s.owner = whose AND s.expires > moment;
        -- Expired ones do not count.
        IF ROW_COUNT() > 0 THEN
            SET deleted = deleted + 1;
        ELSE
            DELETE s FROM `sessions` AS s FORCE INDEX (PRIMARY)
                WHERE s.id = theirs AND s.owner = whose;
        END IF;
        SELECT MIN(s.id) INTO theirs FROM `sessions` AS s
            WHERE s.owner = whose AND NOT s.id <=> spared AND s.id > theirs;
    END WHILE;
    COMMIT;
    SELECT deleted;
END
//

DROP PROCEDURE IF EXISTS `sessions_delete_expired`
//

-- Rows that somebody else is at are left to them: no instance waits for another.
CREATE PROCEDURE `sessions_delete_expired`(
    IN moment BIGINT UNSIGNED, IN most BIGINT UNSIGNED, IN forgotten BIGINT UNSIGNED
) SQL SECURITY INVOKER
BEGIN
    DELETE r FROM (
        SELECT owner, kept FROM `sessions_revoked` FORCE INDEX (at) WHERE at <= forgotten OR at IS NULL
            LIMIT most FOR UPDATE SKIP LOCKED
    ) AS due STRAIGHT_JOIN `sessions_revoked` AS r ON r.owner = due.owner AND r.kept = due.kept;
    DELETE s FROM (
        SELECT id FROM `sessions` FORCE INDEX (expires) WHERE expires <= moment
            ORDER BY expires LIMIT most FOR UPDATE SKIP LOCKED
    ) AS due STRAIGHT_JOIN `sessions` AS s FORCE INDEX (PRIMARY) ON s.id = due.id
    WHERE s.expires <= moment;
    SELECT ROW_COUNT() AS deleted;
END
//

UPDATE `cloakroom_schema` SET version = 1 WHERE `table` = 'sessions'
//
