//! What clients are called toward servers: `application_name` by a template, as `pg_stat_activity` shows it.

use crate::support as m;
use crate::support::{Message, Pooler, Rig, ScriptedServer, Wire};

/// The name under which the client's server runs this very query, which does not speak of it.
fn server_name(rig: &Rig, client: &mut Wire) -> String {
    let pid = client.one("SELECT pg_backend_pid()");
    rig.sql(&format!(
        "SELECT application_name FROM pg_stat_activity WHERE pid = {pid}"
    ))
}

/// What the client was told of the name in these messages.
fn told(messages: &[Message]) -> Vec<String> {
    let names = messages
        .iter()
        .filter(|m| m.tag == b'S')
        .map(|m| String::from_utf8_lossy(&m.body).into_owned());
    names
        .filter_map(|body| {
            Some(
                body.strip_prefix("application_name\0")?
                    .trim_end_matches('\0')
                    .to_owned(),
            )
        })
        .collect()
}

fn address(client: &Wire) -> String {
    client.writer().local_addr().expect("a socket").to_string()
}

/// The server knows who is behind it; the client sees its own name however it looks.
#[test]
fn servers_show_the_name_of_the_template_and_clients_their_own() {
    let rig = Rig::with(|b| {
        b.set("application_name = \"{application}@{client}\"")
            .set("pool_size = 1")
    });
    let mut shop = rig.login_with(&[("application_name", "shop")]);
    let mut desk = rig.login_with(&[("application_name", "desk")]);
    let mut nameless = rig.login();
    for _ in 0..2 {
        let at = address(&shop);
        assert_eq!(server_name(&rig, &mut shop), format!("shop@{at}"));
        let at = address(&desk);
        assert_eq!(server_name(&rig, &mut desk), format!("desk@{at}"));
        let at = address(&nameless);
        assert_eq!(server_name(&rig, &mut nameless), format!("@{at}"));
        for ask in [
            "SHOW application_name",
            "SELECT current_setting('application_name')",
            "SELECT setting FROM pg_settings WHERE name = 'application_name'",
        ] {
            assert_eq!(shop.one(ask), "shop", "{ask}");
            assert_eq!(desk.one(ask), "desk", "{ask}");
            assert_eq!(nameless.one(ask), "", "{ask}");
        }
    }
    // By the extended protocol, prepared and in a block.
    shop.send(&[m::parse("s", "SHOW application_name"), m::sync()]);
    shop.recv_to_ready();
    desk.rows("SELECT 1");
    shop.send(&[m::bind("", "s", &[]), m::execute(""), m::sync()]);
    shop.expect("2 D(shop) C(SHOW) Z(I)");
    shop.rows("BEGIN");
    let at = address(&shop);
    assert_eq!(server_name(&rig, &mut shop), format!("shop@{at}"));
    assert_eq!(shop.one("SHOW application_name"), "shop");
    shop.rows("COMMIT");
    assert_eq!(server_name(&rig, &mut shop), format!("shop@{at}"));
}

/// What the client sets is its name, in the template's place from the next transaction on; what is taken back goes back
/// to the name that it had, on both sides.
#[test]
fn a_name_that_the_client_sets_is_its_own() {
    let rig = Rig::with(|b| {
        b.set("application_name = \"{application}/{user}/{database}\"")
            .set("pool_size = 1")
    });
    let database = rig.database.clone();
    let shown = |name: &str| format!("{name}/postgres/{database}");
    let mut client = rig.login_with(&[("application_name", "first")]);
    let mut other = rig.login_with(&[("application_name", "other")]);
    client.send(&[m::query("SET application_name = 'second'")]);
    assert_eq!(told(&client.recv_to_ready()), ["second"]);
    assert_eq!(server_name(&rig, &mut client), shown("second"));
    assert_eq!(server_name(&rig, &mut other), shown("other"));
    assert_eq!(client.one("SHOW application_name"), "second");
    // Taken back.
    client.rows("BEGIN");
    client.rows("SET application_name = 'third'");
    client.rows("SELECT 1");
    client.send(&[m::query("ROLLBACK")]);
    let now = told(&client.recv_to_ready());
    assert!(now.iter().all(|name| name == "second"), "{now:?}");
    assert_eq!(client.one("SHOW application_name"), "second");
    assert_eq!(server_name(&rig, &mut client), shown("second"));
    // For one transaction, and with a statement that fails in between.
    client.rows("BEGIN");
    client.rows("SET LOCAL application_name = 'fourth'");
    assert_eq!(client.one("SHOW application_name"), "fourth");
    client
        .try_rows("SELECT 1/0")
        .expect_err("a division by zero");
    client
        .try_rows("SHOW application_name")
        .expect_err("a failed transaction");
    client.rows("ROLLBACK");
    assert_eq!(client.one("SHOW application_name"), "second");
    client.rows("BEGIN");
    client.rows("SELECT 1");
    client
        .try_rows("SELECT 1/0")
        .expect_err("a division by zero");
    client.send(&[m::query("ROLLBACK")]);
    let now = told(&client.recv_to_ready());
    assert!(now.iter().all(|name| name == "second"), "{now:?}");
    // What is asked about the session finds the template's name on the server, which is none of the client's.
    client.rows("SELECT set_config('work_mem', '5MB', false)");
    assert_eq!(client.one("SHOW application_name"), "second");
    assert_eq!(server_name(&rig, &mut client), shown("second"));
    client.rows("RESET ALL");
    assert_eq!(client.one("SHOW application_name"), "first");
    assert_eq!(server_name(&rig, &mut client), shown("first"));
    client.rows("DISCARD ALL");
    assert_eq!(client.one("SHOW application_name"), "first");
    assert_eq!(server_name(&rig, &mut client), shown("first"));
    assert_eq!(server_name(&rig, &mut other), shown("other"));
}

/// PostgreSQL keeps 63 bytes of printable ASCII.
#[test]
fn a_name_that_is_too_long_keeps_what_the_template_adds() {
    let rig = Rig::with(|b| b.set("application_name = \"{application} of {database}\""));
    let long = "x".repeat(100);
    let mut client = rig.login_with(&[("application_name", &long)]);
    let name = server_name(&rig, &mut client);
    assert_eq!(name.len(), 63);
    assert!(name.ends_with(&format!("x of {}", rig.database)), "{name}");
    assert_eq!(client.one("SHOW application_name"), "x".repeat(63));
}

/// Clients of one name share a server without setting anything; another name is set in front of the first statement, and
/// never again.
#[test]
fn names_are_set_only_where_they_differ() {
    let server = ScriptedServer::answering("1");
    let template = "application_name = \"{application} of {user}\"";
    let builder = Pooler::builder().set(template).set("pool_size = 1");
    let pooler = builder.host(server.port()).start();
    let login = |name| {
        let parameters = [("user", "u"), ("database", "d"), ("application_name", name)];
        Wire::login_with(pooler.port(), &parameters, "")
    };
    let mut clients = ["shop", "shop", "desk"].map(login);
    for turn in [0, 1, 0, 2, 2, 1] {
        clients[turn].rows("SELECT 1");
    }
    let received = server.received();
    let sets: Vec<&String> = received
        .iter()
        .filter(|line| line.contains("set_config"))
        .collect();
    let names = ["shop of u", "desk of u", "shop of u"];
    assert_eq!(sets.len(), names.len(), "{received:?}");
    assert!(
        sets.iter().zip(names).all(|(set, name)| set.contains(name)),
        "{sets:?}"
    );
}

/// In a pool by session the server is told at login; a reload changes the names of a transaction pool.
#[test]
fn session_pools_and_reloads() {
    let rig = Rig::with(|b| {
        b.set("pool_mode = \"session\"")
            .set("application_name = \"{application}@{client}\"")
    });
    for _ in 0..2 {
        let mut client = rig.login_with(&[("application_name", "shop")]);
        let at = address(&client);
        assert_eq!(server_name(&rig, &mut client), format!("shop@{at}"));
        client.leave();
    }
    let mut rig = Rig::with(|b| b.set("application_name_add_host = true"));
    let mut client = rig.login_with(&[("application_name", "shop")]);
    let at = address(&client);
    assert_eq!(client.one("SHOW application_name"), format!("shop - {at}"));
    assert_eq!(server_name(&rig, &mut client), format!("shop - {at}"));
    let mut second = rig.login_with(&[("application_name", "shop")]);
    let its = address(&second);
    assert_eq!(second.one("SHOW application_name"), format!("shop - {its}"));
    let mut usual = Rig::new();
    for _ in 0..2 {
        let mut plain = usual.login_with(&[("application_name", "shop")]);
        assert_eq!(plain.one("SHOW application_name"), "shop");
    }
    usual
        .pooler
        .reload(|b| b.set("application_name_add_host = true"));
    m::wait_until("logins have the address", || {
        let mut named = usual.login_with(&[("application_name", "shop")]);
        let at = address(&named);
        named.one("SHOW application_name") == format!("shop - {at}")
    });
    rig.pooler
        .reload(|b| b.set("application_name = \"{user}: {application}\""));
    m::wait_until("the name has changed", || {
        server_name(&rig, &mut client) == format!("postgres: shop - {at}")
    });
    rig.pooler
        .reload(|b| b.set("application_name = \"{application}\""));
    m::wait_until("the name has changed back", || {
        server_name(&rig, &mut client) == format!("shop - {at}")
    });
}
