//! `pooler top --once` of a real pooler, and what it says when there is none.

use std::process::{Command, Output, Stdio};

use crate::support::{Rig, get, metrics_port, query, wait_until};

fn top(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pooler"));
    command.arg("top").args(arguments).env("COLUMNS", "100");
    command.stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8([&*output.stdout, &*output.stderr].concat()).unwrap()
}

#[test]
fn once_shows_a_waiter_and_its_holder() {
    let rig = Rig::with(|b| {
        b.set("pool_size = 1")
            .set("query_wait_notify = \"0\"")
            .section("[metrics]\nlisten = \"127.0.0.1:0\"")
    });
    let mut holder = rig.login_with(&[("application_name", "report")]);
    holder.rows("BEGIN");
    holder.rows("SELECT 'hunter2'");
    let mut waiter = rig.login_with(&[("application_name", "web")]);
    waiter.send(&[query("SELECT 1")]);
    let port = metrics_port(&rig.pooler);
    wait_until("it waits", || {
        get(port, "/status.json").1.contains("\"position\":1")
    });
    let look = || top(&["--once", &format!("http://127.0.0.1:{port}")]);
    let mut shown = look();
    // A worker that is late is named, and what it has is missing.
    wait_until("every worker answers", || {
        shown = look();
        said(&shown).contains("behind report")
    });
    let text = said(&shown);
    assert_eq!(shown.status.code(), Some(0), "{text}");
    let line = |begin: &str| {
        let found = text.lines().find(|line| line.starts_with(begin));
        found.unwrap_or_else(|| panic!("{begin}\n{text}"))
    };
    assert!(line("#1").contains("behind report"), "{text}");
    let holder_line = line("report ");
    assert!(
        holder_line.contains("idle in tx") && holder_line.contains("SELECT ?"),
        "{text}"
    );
    assert!(
        line(&format!("{} / postgres", rig.database)).contains("1/1"),
        "{text}"
    );
    assert!(
        !text.contains('\u{1b}') && !text.contains("hunter2"),
        "{text}"
    );
    holder.rows("COMMIT");
    waiter.expect("T D(1) C(SELECT 1) Z(I)");
}

#[test]
fn what_is_wrong_is_said_with_an_exit_code() {
    let rig = Rig::with(|b| b.section("[metrics]\nlisten = \"127.0.0.1:0\"\nstatus_page = false"));
    let port = metrics_port(&rig.pooler);
    let off = format!("http://127.0.0.1:{port}");
    let not_http = format!("127.0.0.1:{}", rig.pooler.port());
    let nobody = pooler::demo::free_port().unwrap();
    let nobody = format!("127.0.0.1:{nobody}");
    for (arguments, code, part) in [
        (vec!["--once", &off], 1, "status_page is false"),
        (vec!["--once", &not_http], 1, "no answer from"),
        (vec!["--once", &nobody], 1, "no answer from"),
        (vec!["--once", "https://db:9930"], 2, "plain http"),
        (vec!["--once", "--twice"], 2, "--twice"),
        (vec![&off], 2, "use pooler top --once"),
    ] {
        let output = top(&arguments);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty(), "{text}");
    }
}
