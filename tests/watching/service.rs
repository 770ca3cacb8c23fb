//! What the service manager is told, by a socket as systemd makes one.

use std::collections::VecDeque;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pooler::demo::make_dir;

use crate::stuck::{Stuck, id_of};
use crate::support::{Pooler, ScriptedServer, query, wait_until};

struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    waiting: VecDeque<String>,
}

impl Manager {
    fn listen(name: &str) -> Self {
        let path = make_dir(name).unwrap().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        // The pooler may run as another user than the test.
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Self {
            socket,
            path,
            waiting: VecDeque::new(),
        }
    }

    /// A pooler that tells it, and is to show every so many microseconds that it lives.
    fn pooler(&self, server: &ScriptedServer, watchdog_us: &str) -> Pooler {
        Pooler::builder()
            .host(server.port())
            .env("NOTIFY_SOCKET", self.path.to_str().unwrap())
            .env("WATCHDOG_USEC", watchdog_us)
            .start()
    }

    /// Whether anything comes within `time`.
    fn hears(&self, time: Duration) -> bool {
        self.socket.set_read_timeout(Some(time)).unwrap();
        self.socket.recv(&mut [0; 512]).is_ok()
    }

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
    let mut manager = Manager::listen("notify");
    let mut pooler = manager.pooler(&server, "400000");
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
    client.send(&[query("SELECT 1")]);
    client.expect("T D(1) C(SELECT 1) Z(I)");
    pooler.signal("TERM");
    assert_eq!(manager.next(), "STOPPING=1");
    pooler.wait_exit();
}

/// The loop of the main thread goes on, and says nothing: clients of one worker are not served.
#[test]
fn a_worker_that_is_stuck_ends_the_signs_of_life() {
    let server = ScriptedServer::answering("1");
    let mut manager = Manager::listen("stuck");
    let pooler = manager.pooler(&server, "800000");
    assert_eq!(manager.next(), "READY=1");
    assert_eq!(manager.next_of_all(), "WATCHDOG=1");
    let worker = pooler.thread("worker-1").expect("a worker");
    let Some(stuck) = Stuck::new(id_of(&worker)) else {
        return;
    };
    // What was sent before it counts as stuck comes first; from then on a sign would be due every 400 ms.
    let silence = Duration::from_millis(1500);
    let began = Instant::now();
    while manager.hears(silence) {
        assert!(began.elapsed() < Duration::from_secs(10), "it still speaks");
    }
    wait_until("it says why", || {
        pooler.log().contains("worker 1 has not gone round")
    });
    drop(stuck);
    assert!(manager.hears(Duration::from_secs(10)));
    wait_until("it says so", || {
        pooler.log().contains("every worker goes round again")
    });
}
