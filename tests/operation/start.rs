//! Starting, or saying why not: exit code 2 for what is written wrongly, 1 for what the system refuses.

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use pooler::demo::{free_port, make_dir};

use crate::support::{Pooler, Rig, ScriptedServer, Wire, query, start_program, wait_until};

fn new_dir() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    make_dir(&format!("start{number}")).expect("a directory")
}

fn run(config: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pooler"));
    let out = command.arg("run").arg(config).stdin(Stdio::null()).output();
    out.expect("the pooler")
}

fn fails(text: &str, code: i32, says: &[&str]) {
    let dir = new_dir();
    let config = dir.join("pooler.toml");
    std::fs::write(&config, text).expect("a file");
    let out = run(&config);
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(code), "{error}");
    for part in says {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    assert!(!error.contains("panicked"), "{error}");
}

#[test]
fn a_port_in_use() {
    let rig = Rig::new();
    let port = rig.pooler.port();
    fails(
        &Pooler::builder().host(1).toml(port),
        1,
        &["cannot listen", &port.to_string(), "another process"],
    );
    rig.assert_sound();
}

#[test]
fn a_wrong_configuration() {
    let good = Pooler::builder().host(1).toml(free_port().expect("a port"));
    fails(
        &good.replace("workers", "workes"),
        2,
        &["workes", "workers", "pooler.toml:"],
    );
    fails(
        &good.replace("pool_size = 5", "pool_size = -5"),
        2,
        &["pool_size", "pooler.toml:"],
    );
    fails(
        &good.replace("cluster = \"main\"", "cluster = \"mian\""),
        2,
        &["mian", "main"],
    );
    fails(&format!("{good}[auth2]\n"), 2, &["auth2"]);
}

#[test]
fn files_that_cannot_be_read() {
    let missing = new_dir().join("nothing.toml");
    let out = run(&missing);
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{error}");
    assert!(error.contains("nothing.toml"), "{error}");
    let good = Pooler::builder().host(1);
    let toml = good
        .auth("file = \"no-such-userlist.txt\"")
        .toml(free_port().expect("a port"));
    fails(&toml, 2, &["no-such-userlist.txt"]);
    let toml = Pooler::builder()
        .host(1)
        .section("[users.a]\npassword_file = \"no-such-secret\"")
        .toml(free_port().expect("a port"));
    fails(&toml, 2, &["no-such-secret"]);
}

#[test]
fn wrong_arguments() {
    for arguments in [&["walk"][..], &["run"], &[]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pooler"));
        let out = command.args(arguments).output().expect("the pooler");
        assert_eq!(out.status.code(), Some(2), "{arguments:?}");
    }
}

/// A socket that was left behind by a process that was killed is taken over; one that somebody listens on is not.
#[test]
fn a_stale_unix_socket() {
    let dir = new_dir();
    let server = ScriptedServer::answering("1");
    let text = |port: u16| {
        let builder = Pooler::builder().host(server.port());
        builder.listen(&dir.display().to_string()).toml(port)
    };
    let port = free_port().expect("a port");
    let path = dir.join(format!(".s.PGSQL.{port}"));
    let alive = UnixListener::bind(&path).expect("a socket");
    fails(&text(port), 1, &["cannot listen", "another process"]);
    // Its owner is gone, the file is not.
    drop(alive);
    assert!(path.exists());
    let mut process = start_program(&dir, &text(port));
    wait_until("it listens", || {
        std::os::unix::net::UnixStream::connect(&path).is_ok()
    });
    process.stop().expect("its end");
    assert!(!path.exists());
}

/// Nobody reads the log any more, or it is closed: the service goes on.
#[test]
fn a_log_that_is_closed_or_unread_stops_nothing() {
    let server = ScriptedServer::answering("1");
    for closed in [true, false] {
        let dir = new_dir();
        let port = free_port().expect("a port");
        let config = dir.join("pooler.toml");
        let text = Pooler::builder()
            .host(server.port())
            .log_level("debug")
            .toml(port);
        std::fs::write(&config, text).expect("a file");
        let shell = format!(
            "exec {} run {} {}",
            env!("CARGO_BIN_EXE_pooler"),
            config.display(),
            if closed { "2>&-" } else { "" }
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", &shell])
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("a shell");
        let mut log = child.stderr.take().expect("a pipe");
        if !closed {
            let mut first = [0; 1];
            log.read_exact(&mut first).expect("a byte of the log");
        }
        drop(log);
        wait_until("it serves", || Wire::try_connect(port).is_ok());
        for n in 0..50 {
            let mut client = Wire::login(port, "a", &format!("db{}", n % 3));
            client.send(&[query("SELECT 1")]);
            client.expect("T D(1) C(SELECT 1) Z(I)");
            if n % 2 == 0 {
                client.reset();
            }
        }
        let pid = child.id().to_string();
        Command::new("kill")
            .args(["-s", "TERM", &pid])
            .status()
            .expect("kill");
        let mut status = None;
        wait_until("it ends", || {
            status = child.try_wait().expect("a state");
            status.is_some()
        });
        assert_eq!(
            status.expect("just seen").code(),
            Some(0),
            "closed: {closed}"
        );
    }
}
