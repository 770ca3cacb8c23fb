//! Limits on clients.

use crate::support::{Rig, Wire, packet, parameters, startup, version, wait_until};

fn try_login(rig: &Rig, user: &str) -> Result<Wire, crate::support::Message> {
    let who = [("user", user), ("database", &*rig.database)];
    Wire::try_login(rig.pooler.port(), &who, "")
}

fn refused(rig: &Rig, user: &str, limit: &str, value: usize) {
    let error = try_login(rig, user).err().expect("a refusal");
    assert_eq!(error.sqlstate(), "53300", "{error:?}");
    assert!(
        error.text().contains(limit) && error.text().contains(&value.to_string()),
        "{error:?}"
    );
    assert_ne!(error.field(b'H'), "");
}

#[test]
fn max_client_conn_and_the_administrator_still_gets_in() {
    let rig = Rig::with(|b| b.set("max_client_conn = 3").set("admin_users = [\"ops\"]"));
    rig.sql("CREATE ROLE ops LOGIN");
    let mut inside: Vec<Wire> = (0..3).map(|_| rig.login()).collect();
    refused(&rig, "postgres", "max_client_conn", 3);
    let mut ops = try_login(&rig, "ops").expect("the administrator");
    assert_eq!(ops.one("SELECT 1"), "1");
    assert_eq!(inside[0].one("SELECT 1"), "1");
    inside.pop().unwrap().leave();
    wait_until("the place is free", || try_login(&rig, "postgres").is_ok());
    for client in inside.into_iter().chain([ops]) {
        client.leave();
    }
    rig.assert_sound();
    rig.sql("DROP ROLE ops");
}

#[test]
fn limits_of_a_database_and_of_a_user() {
    for (key, shared) in [
        ("max_db_client_connections", true),
        ("max_user_client_connections", false),
    ] {
        let rig = Rig::with(|b| b.set(&format!("{key} = 2")));
        let inside: Vec<Wire> = (0..2).map(|_| rig.login()).collect();
        refused(&rig, "postgres", key, 2);
        // Another user of the same database has a limit of its own only if it is a user's.
        let role = format!("other_{key}");
        rig.sql(&format!("CREATE ROLE {role} LOGIN"));
        assert_eq!(try_login(&rig, &role).is_err(), shared, "{key}");
        drop(inside);
        wait_until("the places are free", || {
            try_login(&rig, "postgres").is_ok()
        });
        rig.assert_sound();
        rig.sql(&format!("DROP ROLE {role}"));
    }
}

/// Logins that fail in every way there is, thousands of them: nothing is counted that is gone.
#[test]
fn t36_counters_are_back_at_nothing_after_thousands_of_failed_logins() {
    let rig = Rig::with(|b| {
        b.set("max_client_conn = 20")
            .set("max_db_client_connections = 20")
    });
    // What is opened once, by a worker that lets somebody in, is there.
    let inside: Vec<_> = (0..20).map(|_| try_login(&rig, "postgres")).collect();
    assert!(inside.iter().all(Result::is_ok));
    drop(inside);
    let files = rig.pooler.open_files();
    let port = rig.pooler.port();
    let good = startup(&[("user", "postgres"), ("database", "no_such_database")]);
    std::thread::scope(|scope| {
        for way in 0..4_usize {
            let good = &good;
            scope.spawn(move || {
                for n in 0..750 {
                    let mut wire = Wire::connect(port);
                    match way {
                        // Refused by PostgreSQL, closed in the middle, nonsense, reset.
                        0 if n % 10 == 0 => {
                            wire.send_bytes(good);
                            let _error = wire.finish_login("postgres", "");
                        }
                        0 | 1 => wire.send_bytes(&good[..n % good.len()]),
                        2 => {
                            wire.send_bytes(&packet(version(9, 0), &parameters(&[("user", "x")])));
                            wire.recv_to_end();
                        }
                        _ => {
                            wire.send_bytes(good);
                            wire.reset();
                        }
                    }
                }
            });
        }
    });
    wait_until("all twenty places are free", || {
        let inside: Vec<_> = (0..20).map(|_| try_login(&rig, "postgres")).collect();
        inside.iter().all(Result::is_ok)
    });
    if let Some(before) = files {
        wait_until("no descriptor is left open", || {
            rig.pooler.open_files().is_none_or(|now| now <= before + 8)
        });
    }
    wait_until("a place is free again", || {
        try_login(&rig, "postgres").is_ok()
    });
    rig.assert_sound();
}
