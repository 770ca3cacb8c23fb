//! Prepared statements at protocol level, in a pool that shares servers: row B12 and traps 2, 3, 20 to 28.

use crate::support::{
    Rig, Wire, bind, close, close_portal, describe, execute, execute_rows, flush, parse,
    parse_typed, query, sync,
};

fn small() -> Rig {
    Rig::with(|b| b.set("pool_size = 1").set("max_prepared_statements = 2"))
}

/// Parse and run a statement that selects `value`.
fn prepare(wire: &mut Wire, name: &str, value: &str) {
    wire.send(&[parse(name, &format!("SELECT '{value}'")), sync()]);
    wire.expect("1 Z(I)");
}

fn run(wire: &mut Wire, name: &str, value: &str) {
    wire.send(&[bind("", name, &[]), execute(""), sync()]);
    wire.expect(&format!("2 D({value}) C(SELECT 1) Z(I)"));
}

fn assert_unknown(wire: &mut Wire, name: &str) {
    wire.send(&[bind("", name, &[]), sync()]);
    let error = wire.expect("E(26000) Z(I)").remove(0);
    assert_eq!(
        error.text(),
        format!("prepared statement \"{name}\" does not exist")
    );
}

#[test]
fn b12_the_same_name_for_different_texts() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut a = rig.login();
    let mut b = rig.login();
    prepare(&mut a, "s", "of a");
    prepare(&mut b, "s", "of b");
    for _ in 0..3 {
        run(&mut a, "s", "of a");
        run(&mut b, "s", "of b");
    }
    a.send(&[close("s"), sync()]);
    a.expect("3 Z(I)");
    assert_unknown(&mut a, "s");
    run(&mut b, "s", "of b");
    rig.assert_sound();
}

/// The same text with other parameter types is another statement, and a long name is a name.
#[test]
fn t22_types_are_part_of_a_statement() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let long = "n".repeat(10_000 - 1);
    let mut wire = rig.login();
    wire.send(&[
        parse_typed("t", "SELECT pg_typeof($1)::text", &[23]),
        parse_typed(&long, "SELECT pg_typeof($1)::text", &[1043]),
        sync(),
    ]);
    wire.expect("1 1 Z(I)");
    for (name, value) in [
        ("t", "integer"),
        (&*long, "character varying"),
        ("t", "integer"),
    ] {
        wire.send(&[bind("", name, &["1"]), execute(""), sync()]);
        wire.expect(&format!("2 D({value}) C(SELECT 1) Z(I)"));
    }
    rig.assert_sound();
}

#[test]
fn t28_a_name_twice_is_42p05_and_an_unknown_one_26000() {
    let rig = small();
    let mut wire = rig.login();
    prepare(&mut wire, "mine", "1");
    for text in ["SELECT '1'", "SELECT 'other'"] {
        wire.send(&[
            parse("mine", text),
            bind("", "mine", &[]),
            execute(""),
            sync(),
        ]);
        let error = wire.expect("E(42P05) Z(I)").remove(0);
        assert_eq!(error.text(), "prepared statement \"mine\" already exists");
    }
    run(&mut wire, "mine", "1");
    // Also when the server has given it up meanwhile, and in a transaction.
    for n in 0..3 {
        prepare(&mut wire, &format!("more{n}"), "2");
        prepare(&mut wire, &format!("other{n}"), &format!("o{n}"));
    }
    wire.send(&[query("BEGIN"), parse("mine", "SELECT 1"), sync()]);
    wire.expect("C(BEGIN) Z(T) E(42P05) Z(E)");
    wire.send(&[query("ROLLBACK")]);
    wire.expect("C(ROLLBACK) Z(I)");
    run(&mut wire, "mine", "1");
    assert_unknown(&mut wire, "nobody");
    assert_unknown(&mut wire, "_p1");
    assert_unknown(&mut wire, "_p1?");
    rig.assert_sound();
}

#[test]
fn t20_eviction_inside_a_pipeline() {
    let rig = small();
    let mut wire = rig.login();
    for round in 0..3 {
        let mut batch = Vec::new();
        let mut expected = String::new();
        for n in 0..5 {
            if round == 0 {
                batch.push(parse(&format!("s{n}"), &format!("SELECT 'v{n}'")));
                expected.push_str("1 ");
            }
        }
        for n in [0, 4, 1, 3, 2, 0, 0, 4] {
            batch.push(bind("", &format!("s{n}"), &[]));
            batch.push(execute(""));
            expected.push_str(&format!("2 D(v{n}) C(SELECT 1) "));
        }
        batch.push(sync());
        wire.send(&batch);
        wire.expect(&format!("{expected}Z(I)"));
    }
    // Bound, then evicted by others before it is executed: a portal outlives its statement's name.
    wire.send(&[
        query("BEGIN"),
        bind("p", "s0", &[]),
        bind("q", "s1", &[]),
        bind("r", "s2", &[]),
        execute("p"),
        execute("q"),
        execute("r"),
        sync(),
        query("COMMIT"),
    ]);
    wire.expect("C(BEGIN) Z(T) 2 2 2 D(v0) C(SELECT 1) D(v1) C(SELECT 1) D(v2) C(SELECT 1) Z(T) C(COMMIT) Z(I)");
    // The server keeps to its limit.
    let held = "SELECT count(*) FROM pg_prepared_statements";
    assert!(wire.one(held).parse::<i32>().unwrap() <= 2);
    rig.assert_sound();
}

/// A statement that does not exist on the server any more when an error skips its preparation.
#[test]
fn t03_t20_an_error_among_evictions_leaves_the_books_right() {
    let rig = small();
    let mut wire = rig.login();
    for n in 0..4 {
        prepare(&mut wire, &format!("s{n}"), &format!("v{n}"));
    }
    for failing in 0..4 {
        let mut batch = Vec::new();
        for n in 0..4 {
            if n == failing {
                batch.push(parse(&format!("bad{n}"), "SELEC"));
            }
            batch.extend([bind("", &format!("s{n}"), &[]), execute("")]);
        }
        batch.push(parse(&format!("after{failing}"), "SELECT 'after'"));
        batch.push(close("s0"));
        batch.push(sync());
        wire.send(&batch);
        let rows: String = (0..failing)
            .map(|n| format!("2 D(v{n}) C(SELECT 1) "))
            .collect();
        wire.expect(&format!("{rows}E(42601) Z(I)"));
        for n in 0..4 {
            run(&mut wire, &format!("s{n}"), &format!("v{n}"));
        }
        assert_unknown(&mut wire, &format!("after{failing}"));
        assert_unknown(&mut wire, &format!("bad{failing}"));
        // A failed Parse leaves the name free.
        prepare(&mut wire, &format!("bad{failing}"), "good now");
    }
    rig.assert_sound();
}

/// Replies of the pooler's own stand where the server's would: behind what came before, in front of what comes after, between
/// no two rows, and not at all behind an error.
#[test]
fn t02_replies_of_the_poolers_own_keep_their_place() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut first = rig.login();
    prepare(&mut first, "held", "x");
    first.leave();
    let mut wire = rig.login();
    let rows = "SELECT n FROM generate_series(1, 3) n";
    let again = parse("s", "SELECT 'x'");
    let end = close("s");
    let all = [
        query(rows),
        again.clone(),
        sync(),
        end.clone(),
        again.clone(),
        parse("", rows),
        bind("", "", &[]),
        execute(""),
        end.clone(),
        again.clone(),
        end.clone(),
        sync(),
        again.clone(),
        query(rows),
        end.clone(),
        sync(),
        sync(),
        again.clone(),
        sync(),
        end.clone(),
        end.clone(),
        sync(),
        parse("", "SELECT 1/0 FROM generate_series(1,1)"),
        again.clone(),
        bind("", "", &[]),
        again,
        end,
        sync(),
    ];
    let transcript = "T D*3 C(SELECT 3) Z(I) 1 Z(I) 3 1 1 2 D*3 C(SELECT 3) 3 1 3 Z(I) 1 T D*3 C(SELECT 3) Z(I) 3 Z(I) Z(I) \
                      1 Z(I) 3 3 Z(I) 1 1 E(22012) Z(I)";
    wire.send(&all);
    wire.expect(transcript);
    // The error has taken back what it skipped only: the first `again` stands.
    run(&mut wire, "s", "x");
    wire.send(&[close("s"), sync()]);
    wire.expect("3 Z(I)");
    for one in &all {
        wire.send(std::slice::from_ref(one));
    }
    wire.expect(transcript);
    wire.send(&[close("s"), sync()]);
    wire.expect("3 Z(I)");
    // In bytes.
    let mut writer = wire.writer();
    let bytes = all.concat();
    let writing = std::thread::spawn(move || {
        for byte in bytes {
            std::io::Write::write_all(&mut writer, &[byte]).expect("a pooler that reads");
        }
    });
    wire.expect(transcript);
    writing.join().expect("no panic");
    rig.assert_sound();
}

#[test]
fn t25_deallocate_and_discard_agree_with_the_books() {
    for (n, command) in ["DEALLOCATE ALL", "DISCARD ALL", "DISCARD PLANS"]
        .into_iter()
        .enumerate()
    {
        let rig = Rig::with(|b| b.set("pool_size = 1"));
        let mut a = rig.login();
        let mut b = rig.login();
        for extended in [false, true] {
            for wire in [&mut a, &mut b] {
                wire.send(&[close("s"), parse("s", "SELECT 'x'"), sync()]);
                wire.expect("3 1 Z(I)");
            }
            let tag = if n == 2 { "DISCARD PLANS" } else { command };
            if extended {
                a.send(&[parse("", command), bind("", "", &[]), execute(""), sync()]);
                a.expect(&format!("1 2 C({tag}) Z(I)"));
            } else {
                a.send(&[query(command)]);
                a.expect(&format!("C({tag}) Z(I)"));
            }
            if n == 2 {
                run(&mut a, "s", "x");
            } else {
                assert_unknown(&mut a, "s");
            }
            // The other client's statement is its own business.
            run(&mut b, "s", "x");
            a.send(&[
                close("s"),
                parse("s", "SELECT 'again'"),
                bind("", "s", &[]),
                execute(""),
                sync(),
            ]);
            a.expect("3 1 2 D(again) C(SELECT 1) Z(I)");
            run(&mut a, "s", "again");
        }
        rig.assert_sound();
    }
}

/// What is prepared behind the command in the same pipeline stays.
#[test]
fn t25_deallocate_all_inside_a_pipeline() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut wire = rig.login();
    prepare(&mut wire, "old", "old");
    for command in ["DEALLOCATE ALL", "DISCARD ALL"] {
        wire.send(&[
            query(command),
            parse("new", "SELECT 'new'"),
            sync(),
            bind("", "new", &[]),
            execute(""),
            sync(),
        ]);
        wire.expect(&format!(
            "C({command}) Z(I) 1 Z(I) 2 D(new) C(SELECT 1) Z(I)"
        ));
        run(&mut wire, "new", "new");
        assert_unknown(&mut wire, "old");
        wire.send(&[close("new"), sync()]);
        wire.expect("3 Z(I)");
    }
    wire.send(&[
        parse("", "DEALLOCATE ALL"),
        bind("", "", &[]),
        execute(""),
        parse("s", "SELECT 'kept'"),
        bind("", "s", &[]),
        execute(""),
        sync(),
    ]);
    wire.expect("1 2 C(DEALLOCATE ALL) 1 2 D(kept) C(SELECT 1) Z(I)");
    run(&mut wire, "s", "kept");
    rig.assert_sound();
}

#[test]
fn t26_a_cached_plan_that_is_out_of_date_is_prepared_again_unseen() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    rig.sql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let mut wire = rig.login();
    wire.send(&[
        parse("s", "SELECT * FROM t"),
        bind("", "s", &[]),
        execute(""),
        sync(),
    ]);
    wire.expect("1 2 D(1) C(SELECT 1) Z(I)");
    rig.sql("ALTER TABLE t ADD COLUMN b int");
    wire.send(&[bind("", "s", &[]), execute(""), sync()]);
    wire.expect("2 D(1|NULL) C(SELECT 1) Z(I)");
    rig.sql("ALTER TABLE t ADD COLUMN c int");
    wire.send(&[describe("s"), bind("", "s", &[]), execute(""), sync()]);
    let got = wire.recv_to_ready();
    let shape: Vec<String> = got.iter().map(|m| format!("{m:?}")).collect();
    assert_eq!(shape.last().map(String::as_str), Some("Z(I)"), "{shape:?}");
    wire.send(&[bind("", "s", &[]), execute(""), sync()]);
    wire.expect("2 D(1|NULL|NULL) C(SELECT 1) Z(I)");
    // In a transaction nothing can be repeated: the error is the client's, and the next try works.
    rig.sql("ALTER TABLE t DROP COLUMN c");
    wire.send(&[
        query("BEGIN"),
        bind("", "s", &[]),
        execute(""),
        sync(),
        query("ROLLBACK"),
    ]);
    wire.expect("C(BEGIN) Z(T) E(0A000) Z(E) C(ROLLBACK) Z(I)");
    wire.send(&[bind("", "s", &[]), execute(""), sync()]);
    wire.expect("2 D(1|NULL) C(SELECT 1) Z(I)");
    rig.assert_sound();
}

#[test]
fn t23_an_error_empties_no_cache() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut wire = rig.login();
    prepare(&mut wire, "s", "x");
    let held = "SELECT coalesce(min(name), 'none') FROM pg_prepared_statements";
    let before = wire.one(held);
    assert_ne!(before, "none");
    wire.send(&[
        query("SELEC"),
        parse("bad", "SELEC"),
        sync(),
        bind("", "nobody", &[]),
        sync(),
    ]);
    wire.expect("E(42601) Z(I) E(42601) Z(I) E(26000) Z(I)");
    assert_eq!(wire.one(held), before);
    run(&mut wire, "s", "x");
    rig.assert_sound();
}

#[test]
fn t27_closing_a_portal_leaves_the_statement_of_that_name() {
    let rig = Rig::new();
    let mut wire = rig.login();
    prepare(&mut wire, "n", "x");
    wire.send(&[bind("n", "n", &[]), close_portal("n"), sync()]);
    wire.expect("2 3 Z(I)");
    run(&mut wire, "n", "x");
    wire.send(&[
        query("BEGIN"),
        bind("n", "n", &[]),
        close("n"),
        execute("n"),
        sync(),
        query("COMMIT"),
    ]);
    wire.expect("C(BEGIN) Z(T) 2 3 D(x) C(SELECT 1) Z(T) C(COMMIT) Z(I)");
    assert_unknown(&mut wire, "n");
    rig.assert_sound();
}

#[test]
fn t24_ten_thousand_statements_are_bounded() {
    let rig = Rig::with(|b| b.set("pool_size = 1").set("max_prepared_statements = 50"));
    let mut wire = rig.login();
    let expected = "1 2 D*1 C(SELECT 1) 3 Z(I)";
    for chunk in 0..20 {
        let mut batch = Vec::new();
        for n in chunk * 500..(chunk + 1) * 500 {
            let name = format!("s{n}");
            batch.push(parse(&name, &format!("SELECT {n}")));
            batch.push(bind("", &name, &[]));
            batch.push(execute(""));
            batch.push(close(&name));
            batch.push(sync());
        }
        wire.send(&batch);
        for _ in 0..500 {
            wire.expect(expected);
        }
    }
    let held: i32 = wire
        .one("SELECT count(*) FROM pg_prepared_statements")
        .parse()
        .unwrap();
    assert!(held <= 50, "{held}");
    rig.assert_sound();
}

#[test]
fn t01_a_suspended_portal_keeps_its_server() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut wire = rig.login();
    wire.send(&[
        query("BEGIN"),
        parse("s", "SELECT generate_series(1, 5)"),
        bind("p", "s", &[]),
        execute_rows("p", 2),
        sync(),
    ]);
    wire.expect("C(BEGIN) Z(T) 1 2 D(1) D(2) s Z(T)");
    let mut other = rig.login();
    other.send(&[query("SELECT 'other'")]);
    wire.send(&[execute_rows("p", 2), flush()]);
    wire.expect("D(3) D(4) s");
    wire.send(&[execute("p"), sync(), query("COMMIT")]);
    wire.expect("D(5) C(SELECT 1) Z(T) C(COMMIT) Z(I)");
    other.expect("T D(other) C(SELECT 1) Z(I)");
    rig.assert_sound();
}

/// A pipeline of many transactions: a server that is given back too early would answer the rest to somebody else.
#[test]
fn t01_t02_deep_pipelines_of_several_clients_on_one_server() {
    let rig = Rig::with(|b| b.set("pool_size = 1").set("max_prepared_statements = 3"));
    std::thread::scope(|scope| {
        for who in 0..4 {
            let rig = &rig;
            scope.spawn(move || {
                let mut wire = rig.login();
                for round in 0..10 {
                    let mut batch = Vec::new();
                    let mut expected = String::new();
                    for n in 0..20 {
                        let value = format!("{who}.{round}.{n}");
                        let name = format!("s{}", n % 5);
                        match n % 4 {
                            0 => {
                                batch.push(query(&format!("SELECT '{value}'")));
                                expected.push_str(&format!("T D({value}) C(SELECT 1) Z(I) "));
                            }
                            1 => {
                                batch.extend([
                                    parse("", &format!("SELECT '{value}'")),
                                    bind("", "", &[]),
                                    execute(""),
                                    sync(),
                                ]);
                                expected.push_str(&format!("1 2 D({value}) C(SELECT 1) Z(I) "));
                            }
                            2 => {
                                batch.extend([
                                    close(&name),
                                    parse(&name, "SELECT $1::text"),
                                    bind("", &name, &[&value]),
                                    execute(""),
                                    sync(),
                                ]);
                                expected.push_str(&format!("3 1 2 D({value}) C(SELECT 1) Z(I) "));
                            }
                            _ => {
                                batch.extend([parse("", "SELEC"), execute(""), sync()]);
                                expected.push_str("E(42601) Z(I) ");
                            }
                        }
                    }
                    wire.send(&batch);
                    wire.expect(expected.trim_end());
                }
            });
        }
    });
    rig.assert_sound();
}
