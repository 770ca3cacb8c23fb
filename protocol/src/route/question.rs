//! The question by which a database is asked for its names.
//!
//! Functions that are declared VOLATILE may do anything ("Function Volatility Categories" in
//! PostgreSQL's documentation), save those of a list that do nothing but answer. Other functions are no
//! better if an answer belongs to one host or one transaction (`pg_stat_get_*`, `txid_current`), if
//! they are aggregates made of such, or have such a default of an argument.
//!
//! Behind a relation hides what its views and policies call, and what a replica cannot read (unlogged
//! tables), reads ahead of the primary (sequences, which log 32 values at once) or reads elsewhere
//! (foreign tables); and whatever hides behind a relation that a view, a policy or a partition refers to.
//! `pg_depend` has no rows for functions that are built in, so the stored trees of rules are searched
//! for the numbers of functions. Those of the information schema call none of these.
//!
//! A cast by such a function may be made without being named. It needs a value of one of its two types
//! that is not built in: relations with a column of that type, functions that take or give it, and its
//! name are suspect. If both are built in, everything is (`cast`).
//!
//! Triggers, procedures and functions that take something internal cannot be called by a statement.

/// Rows of kind (`safe`, `function`, `relation`, `type`, `operator`, `cast`) and name. See
/// [`super::Catalogue`]. Everybody may ask it; nothing in it depends on the search path. On a fresh database it
/// takes some 20 ms and has 2,700 rows.
pub const QUESTION: &str = r#"WITH RECURSIVE
called AS MATERIALIZED (
    SELECT p.oid, p.proname,
        2281::pg_catalog.oid OPERATOR(pg_catalog.<>) ALL (p.proargtypes::pg_catalog.oid[]) AND CASE
            WHEN p.pronamespace OPERATOR(pg_catalog.=) 11::pg_catalog.oid THEN
                p.proname OPERATOR(pg_catalog.~) '^pg_stat_get_'
                OR p.proname OPERATOR(pg_catalog.=) ANY ('{inet_server_addr,inet_server_port,pg_backend_pid,pg_conf_load_time,
                    pg_current_snapshot,pg_current_xact_id,pg_current_xact_id_if_assigned,pg_cursor,pg_get_replication_slots,
                    pg_listening_channels,pg_postmaster_start_time,pg_prepared_statement,pg_show_all_settings,
                    pg_walfile_name,pg_walfile_name_offset,txid_current,txid_current_if_assigned,
                    txid_current_snapshot}'::pg_catalog.name[])
                OR p.provolatile OPERATOR(pg_catalog.=) 'v' AND p.proname OPERATOR(pg_catalog.<>) ALL (
                    '{array_sample,array_shuffle,clock_timestamp,current_query,gen_random_uuid,pg_database_size,
                    pg_indexes_size,pg_partition_ancestors,pg_partition_tree,pg_relation_size,pg_sleep,pg_sleep_for,
                    pg_sleep_until,pg_table_size,pg_tablespace_size,pg_total_relation_size,random,random_normal,
                    timeofday,uuidv4,uuidv7}'::pg_catalog.name[])
            ELSE p.provolatile OPERATOR(pg_catalog.=) 'v' AND NOT (
                l.lanname OPERATOR(pg_catalog.=) 'c' AND p.proname OPERATOR(pg_catalog.=) ANY (
                    '{gen_random_bytes,gen_random_uuid,gen_salt,normal_rand,pgp_pub_encrypt,pgp_pub_encrypt_bytea,
                    pgp_sym_encrypt,pgp_sym_encrypt_bytea,uuid_generate_v1,uuid_generate_v1mc,uuid_generate_v3,
                    uuid_generate_v4,uuid_generate_v5}'::pg_catalog.name[]))
        END AS bad,
        p.proargdefaults, p.prorettype, p.proargtypes
    FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang
    WHERE p.prokind OPERATOR(pg_catalog.<>) 'p'
    AND p.prorettype OPERATOR(pg_catalog.<>) ALL ('{2279,3838}'::pg_catalog.oid[])
),
basic AS MATERIALIZED (SELECT oid FROM called WHERE bad),
casts AS (
    SELECT CASE WHEN c.castsource OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid THEN c.castsource ELSE c.casttarget END AS carrier
    FROM pg_catalog.pg_cast c WHERE EXISTS (SELECT FROM basic b WHERE b.oid OPERATOR(pg_catalog.=) c.castfunc)
),
carriers AS MATERIALIZED (
    SELECT pg_catalog.array_agg(t.oid) AS oids FROM pg_catalog.pg_type t WHERE EXISTS (
        SELECT FROM casts c WHERE c.carrier OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
        AND c.carrier OPERATOR(pg_catalog.=) ANY (ARRAY[t.oid, t.typelem]))
),
bad AS MATERIALIZED (
    SELECT oid FROM basic
    UNION
    SELECT a.aggfnoid::pg_catalog.oid FROM pg_catalog.pg_aggregate a
    WHERE a.aggfnoid::pg_catalog.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND EXISTS (
        SELECT FROM basic b WHERE b.oid OPERATOR(pg_catalog.=) ANY (ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn,
            a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]::pg_catalog.oid[]))
    UNION
    SELECT c.oid FROM called c
    WHERE c.proargdefaults IS NOT NULL AND EXISTS (
        SELECT FROM pg_catalog.unnest(pg_catalog.string_to_array(c.proargdefaults::pg_catalog.text, 'funcid ')) part
        JOIN basic b ON b.oid::pg_catalog.text OPERATOR(pg_catalog.=) pg_catalog.split_part(part, ' ', 1))
    UNION
    SELECT c.oid FROM called c, carriers t WHERE c.prorettype OPERATOR(pg_catalog.=) ANY (t.oids)
        OR c.proargtypes::pg_catalog.oid[] OPERATOR(pg_catalog.&&) t.oids
),
rules AS MATERIALIZED (
    SELECT r.oid, r.ev_class AS relation, r.ev_action::pg_catalog.text AS tree
    FROM pg_catalog.pg_rewrite r
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.ev_class
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE c.relkind OPERATOR(pg_catalog.=) 'v' AND n.nspname OPERATOR(pg_catalog.<>) 'information_schema'
),
trees AS (
    SELECT relation, tree FROM rules
    UNION ALL
    SELECT polrelid, polqual::pg_catalog.text FROM pg_catalog.pg_policy
),
edges AS MATERIALIZED (
    SELECT d.refobjid AS used, r.ev_class AS relation
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_rewrite r ON r.oid OPERATOR(pg_catalog.=) d.objid
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
    AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
    UNION
    SELECT d.refobjid, p.polrelid
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_policy p ON p.oid OPERATOR(pg_catalog.=) d.objid
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_policy'::pg_catalog.regclass
    AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
    UNION
    SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits
),
hiding AS (
    SELECT oid FROM pg_catalog.pg_class
    WHERE relpersistence OPERATOR(pg_catalog.=) 'u' OR relkind OPERATOR(pg_catalog.=) ANY ('{S,f}'::pg_catalog."char"[])
    UNION
    SELECT t.relation FROM trees t WHERE EXISTS (
        SELECT FROM pg_catalog.unnest(pg_catalog.string_to_array(t.tree, 'funcid ')) part
        JOIN bad b ON b.oid::pg_catalog.text OPERATOR(pg_catalog.=) pg_catalog.split_part(part, ' ', 1))
    UNION
    SELECT t.relation FROM trees t WHERE EXISTS (
        SELECT FROM pg_catalog.unnest(pg_catalog.string_to_array(t.tree, 'fnoid ')) part
        JOIN bad b ON b.oid::pg_catalog.text OPERATOR(pg_catalog.=) pg_catalog.split_part(part, ' ', 1))
    UNION
    SELECT relation FROM rules WHERE pg_catalog.strpos(tree, '{ROWMARKCLAUSE') OPERATOR(pg_catalog.>) 0
    UNION
    SELECT a.attrelid FROM pg_catalog.pg_attribute a, carriers t WHERE a.atttypid OPERATOR(pg_catalog.=) ANY (t.oids)
),
relations AS (
    SELECT oid FROM hiding
    UNION
    SELECT e.relation FROM relations r JOIN edges e ON e.used OPERATOR(pg_catalog.=) r.oid
)
SELECT CASE WHEN pg_catalog.bool_or(b.oid IS NOT NULL) THEN 'function' ELSE 'safe' END, c.proname::pg_catalog.text
FROM called c LEFT JOIN bad b ON b.oid OPERATOR(pg_catalog.=) c.oid
GROUP BY c.proname
UNION ALL
SELECT DISTINCT 'relation', c.relname::pg_catalog.text
FROM relations r JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.oid
WHERE c.relkind OPERATOR(pg_catalog.<>) ALL ('{i,I,t}'::pg_catalog."char"[])
UNION ALL
SELECT DISTINCT 'operator', o.oprname::pg_catalog.text
FROM pg_catalog.pg_operator o JOIN bad b ON b.oid OPERATOR(pg_catalog.=) o.oprcode::pg_catalog.oid
UNION ALL
SELECT 'type', t.typname::pg_catalog.text
FROM pg_catalog.pg_type t, carriers c WHERE t.oid OPERATOR(pg_catalog.=) ANY (c.oids)
UNION ALL
SELECT 'cast', carrier::pg_catalog.regtype::pg_catalog.text FROM casts
WHERE carrier OPERATOR(pg_catalog.<) 16384::pg_catalog.oid
UNION ALL
SELECT DISTINCT 'type', t.typname::pg_catalog.text
FROM pg_catalog.pg_constraint c
JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) c.contypid,
    pg_catalog.unnest(pg_catalog.string_to_array(c.conbin::pg_catalog.text, 'funcid ')) part
JOIN bad b ON b.oid::pg_catalog.text OPERATOR(pg_catalog.=) pg_catalog.split_part(part, ' ', 1)
LIMIT 100001"#;
