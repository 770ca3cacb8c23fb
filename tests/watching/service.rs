//! What the service manager is told, by a socket as systemd makes one.

use std::collections::VecDeque;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use pooler::demo::make_dir;

use crate::support::{Pooler, ScriptedServer};

struct Manager {
    socket: UnixDatagram,
    waiting: VecDeque<String>,
}

impl Manager {
    /// The next line that is no sign of life.
    fn next(&mut self) -> String {
        loop {
            let line = self.next_of_all();
            if line != "WATCHDOG=1" {
                return line;
            }
        }
    }

    fn next_of_all(&mut self) -> String {
        if self.waiting.is_empty() {
            let mut message = [0; 512];
            let n = self.socket.recv(&mut message).expect("a message in time");
            let text = std::str::from_utf8(&message[..n]).unwrap();
            self.waiting.extend(text.lines().map(str::to_owned));
        }
        self.waiting.pop_front().unwrap()
    }
}

#[test]
fn the_service_manager_hears_of_start_reload_life_and_end() {
    let server = ScriptedServer::answering("1");
    let path = make_dir("notify").unwrap().join("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    // The pooler may run as another user than the test.
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut manager = Manager {
        socket,
        waiting: VecDeque::new(),
    };
    let mut pooler: Pooler = Pooler::builder()
        .host(server.port())
        .env("NOTIFY_SOCKET", path.to_str().unwrap())
        .env("WATCHDOG_USEC", "400000")
        .start();
    assert_eq!(manager.next(), "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.next_of_all(), "WATCHDOG=1");
    }
    // A reload that is refused is over, too.
    for text in ["[pooler]\npool_sise = 1\n", "good"] {
        match text {
            "good" => pooler.reload(|b| b),
            text => pooler.reload_text(text),
        }
        assert_eq!(manager.next(), "RELOADING=1");
        let time = manager.next();
        let time = time.strip_prefix("MONOTONIC_USEC=").expect("the time");
        assert!(time.parse::<u64>().unwrap() > 0);
        assert_eq!(manager.next(), "READY=1");
    }
    let mut client = pooler.login("a", "a");
    client.send(&[crate::support::query("SELECT 1")]);
    client.expect("T D(1) C(SELECT 1) Z(I)");
    pooler.signal("TERM");
    assert_eq!(manager.next(), "STOPPING=1");
    pooler.wait_exit();
}
