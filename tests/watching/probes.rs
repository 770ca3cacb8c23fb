//! Those who only look whether somebody is there, and what a restart leaves to its successor.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use pooler::demo::{Leashed, free_port, make_dir};

use crate::prometheus::{get, metrics_port};
use crate::support::{
    Pooler, Rig, ScriptedServer, postgres, ssl_request, start_program, wait_until,
};

/// Load balancers connect every second and leave; scrapers come as often. None of them is worth a line.
#[test]
fn t81_probes_that_connect_and_leave_do_not_fill_the_log() {
    let rig = Rig::with(|b| b.section("[metrics]\nlisten = \"127.0.0.1:0\""));
    let port = metrics_port(&rig.pooler);
    rig.login().leave();
    let before = rig.pooler.log().lines().count();
    for n in 0..60 {
        let mut probe = TcpStream::connect((Ipv4Addr::LOCALHOST, rig.pooler.port())).unwrap();
        match n % 3 {
            0 => {}
            1 => {
                probe.write_all(&ssl_request()).unwrap();
                let mut answer = [0];
                probe.read_exact(&mut answer).unwrap();
                assert_eq!(&answer, b"N");
            }
            _ => probe.write_all(b"\0").unwrap(),
        }
        drop(probe);
        let (status, _) = get(port, "/healthz");
        assert!(status.ends_with("200 OK"), "{status}");
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap());
    }
    // Whoever logs in now comes after all of them.
    rig.login().leave();
    let log = rig.pooler.log();
    let new: Vec<&str> = log.lines().skip(before).collect();
    assert!(new.is_empty(), "{new:#?}");
}

/// The monitor looks twice a second, by one connection: PostgreSQL's log does not fill with logins, either.
#[test]
fn t81_the_monitor_does_not_log_in_again_for_each_look() {
    // Others look at this PostgreSQL, too.
    postgres().psql("CREATE ROLE t81 SUPERUSER LOGIN").unwrap();
    let pooler = Pooler::before(postgres())
        .cluster("monitor_user = \"t81\"")
        .cluster("monitor_interval = \"50ms\"")
        .start();
    let mut wire = pooler.login("postgres", "postgres");
    let seen = "SELECT count(*), max(state_change) FROM pg_stat_activity \
                WHERE query LIKE '%pg_control_system%' AND usename = 't81'";
    let mut looks = std::collections::BTreeSet::new();
    wait_until("it has looked ten times", || {
        let row = wire.rows(seen).remove(0);
        assert!(matches!(&*row[0], "0" | "1"), "{row:?}");
        looks.insert(row[1].clone());
        looks.len() > 10
    });
    let who = "SELECT count(DISTINCT pid) FROM pg_stat_activity WHERE query LIKE '%pg_control_system%' \
               AND usename = 't81'";
    assert_eq!(wire.one(who), "1");
}

/// A pooler that listens in `dir`, started there.
fn start_in(dir: &std::path::Path, server: &ScriptedServer, port: u16) -> Leashed {
    let text = Pooler::builder()
        .host(server.port())
        .listen(dir.to_str().unwrap())
        .toml(port);
    let process = start_program(dir, &text);
    // The Unix socket comes last.
    let path = dir.join(format!(".s.PGSQL.{port}"));
    wait_until("it listens", || UnixStream::connect(&path).is_ok());
    process
}

#[test]
fn t77_a_restart_keeps_the_socket_and_leaks_nothing() {
    let server = ScriptedServer::answering("1");
    let dir = make_dir("t77").unwrap();
    let port = free_port().unwrap();
    let first = start_in(&dir, &server, port);
    let sockets = || {
        let names = std::fs::read_dir(&dir).unwrap().flatten();
        let mut paths = names.map(|e| e.path());
        paths.find(|p| {
            p.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(".s.PGSQL.")
        })
    };
    let path = sockets().expect("a socket");
    assert!(UnixStream::connect(&path).is_ok());
    // A child would get none of its descriptors.
    let infos = format!("/proc/{}/fdinfo", first.pid());
    for entry in std::fs::read_dir(infos).unwrap().flatten() {
        let number = entry.file_name().into_string().unwrap();
        let Ok(info) = std::fs::read_to_string(entry.path()) else {
            continue;
        };
        let flags = info.lines().find_map(|l| l.strip_prefix("flags:")).unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        let target = format!("/proc/{}/fd/{number}", first.pid());
        let Ok(target) = std::fs::read_link(target) else {
            continue;
        };
        let is_ours = target.to_str().is_some_and(|t| t.starts_with("socket:"));
        assert!(!is_ours || flags & 0o2_000_000 != 0, "{number}: {target:?}");
    }
    // Killed, it leaves the file; the next one takes its place.
    let mut first = first;
    let killed = Command::new("kill")
        .args(["-s", "KILL", &first.pid().to_string()])
        .status();
    assert!(killed.unwrap().success());
    wait_until("it is gone", || first.ended().unwrap().is_some());
    assert!(path.exists() && UnixStream::connect(&path).is_err());
    let mut second = start_in(&dir, &server, port);
    let path = sockets().expect("a socket");
    assert!(UnixStream::connect(&path).is_ok());
    // Somebody made room by hand, and a successor listens: it is not the first one's to remove.
    std::fs::remove_file(&path).unwrap();
    let successor = std::os::unix::net::UnixListener::bind(&path).unwrap();
    second.stop().unwrap();
    assert!(UnixStream::connect(&path).is_ok());
    drop(successor);
}
