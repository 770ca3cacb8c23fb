//! State that a client's text says nothing of: it is made by a function, a trigger or a view's
//! function of the database's own.

use crate::support::{Rig, query, wait_until};

const FUNCTIONS: &str = "
    CREATE TABLE orders (i int);
    CREATE FUNCTION make() RETURNS void LANGUAGE plpgsql AS
        'BEGIN CREATE TEMP TABLE made (i int); END';
    CREATE FUNCTION by_another() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM make()';
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM set_config(''app.last'', NEW.i::text, false); RETURN NEW; END';
    CREATE TRIGGER note AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION note();
    CREATE FUNCTION lock() RETURNS int LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_lock(7); RETURN 7; END';
    CREATE VIEW locking AS SELECT lock();
";

fn rig() -> Rig {
    let rig = Rig::with(|b| b.set("pool_size = 2"));
    // Before the pooler opens its first server.
    rig.sql(FUNCTIONS);
    rig
}

#[test]
fn t29_a_temporary_table_that_a_function_makes_is_its_clients() {
    let rig = rig();
    let (mut one, mut two) = (rig.login(), rig.login());
    for make in ["SELECT make()", "SELECT by_another()"] {
        one.rows(make);
        assert_eq!(one.one("SELECT count(*) FROM made"), "0", "{make}");
        two.send(&[query("SELECT count(*) FROM made")]);
        two.expect("E(42P01) Z(I)");
        one.rows("DROP TABLE made");
    }
    rig.assert_sound();
}

#[test]
fn t29_a_setting_that_a_trigger_changes_goes_with_its_client() {
    let rig = rig();
    let (mut one, mut two) = (rig.login(), rig.login());
    for n in 0..10 {
        one.rows(&format!("INSERT INTO orders VALUES ({n})"));
        // A server that never heard of it has none, one that had it reset an empty one.
        let foreign = two.one("SELECT current_setting('app.last', true)");
        assert!(["", "NULL"].contains(&&*foreign), "{foreign}");
        assert_eq!(
            one.one("SELECT current_setting('app.last', true)"),
            n.to_string()
        );
    }
    rig.assert_sound();
}

#[test]
fn t29_a_lock_that_a_view_takes_stays_with_its_client() {
    let rig = rig();
    let (mut one, mut two) = (rig.login(), rig.login());
    one.rows("SELECT * FROM locking");
    assert_eq!(two.one("SELECT pg_try_advisory_lock(7)"), "f");
    assert_eq!(one.one("SELECT pg_advisory_unlock(7)"), "t");
    rig.assert_sound();
}

/// Defined through the pooler, it is known when the next sweep has passed.
#[test]
fn t29_a_function_that_is_defined_later_is_found() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut one = rig.login();
    one.rows("SELECT 1");
    one.rows(
        "CREATE FUNCTION later() RETURNS void LANGUAGE plpgsql AS
            'BEGIN CREATE TEMP TABLE IF NOT EXISTS late (i int); END'",
    );
    // The question is the last thing that the server was asked.
    let asked = "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
                 AND datname = current_database() AND query LIKE '%pg_my_temp_schema%'";
    wait_until("the call is suspect", || {
        one.rows("SELECT later()");
        rig.sql(asked) == "1"
    });
    one.leave();
    rig.assert_sound();
}
