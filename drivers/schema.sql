-- What every driver's database starts with.
CREATE TABLE items (id bigserial PRIMARY KEY, session int NOT NULL, n int NOT NULL, value text NOT NULL);
CREATE INDEX ON items (session, n);
CREATE TABLE counter (value int NOT NULL);
INSERT INTO counter VALUES (0);
CREATE TYPE mood AS ENUM ('good', 'bad');
-- A schema for each session: what `whoami` is depends on search_path.
DO $$
BEGIN
    FOR session IN 0..199 LOOP
        EXECUTE format('CREATE SCHEMA s%s', session);
        EXECUTE format('CREATE TABLE s%s.whoami AS SELECT %s AS session', session, session);
    END LOOP;
END
$$;
