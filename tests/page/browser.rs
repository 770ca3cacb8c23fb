//! Chromium, headless, by the DevTools protocol (<https://chromedevtools.github.io/devtools-protocol/>).
//!
//! It is spoken through a pair of pipes (`--remote-debugging-pipe`): JSON with a NUL behind each message, no port
//! and no WebSocket. The browser has a profile of its own and ends with the test.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use pooler::demo::{Leashed, find_program, make_dir};
use serde_json::{Value, json};

/// How long the browser may take for anything: it is slow to start where others work.
const PATIENCE: Duration = Duration::from_secs(60);

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];

/// A browser with one page.
pub(crate) struct Browser {
    to: File,
    from: Receiver<Value>,
    session: String,
    next: u64,
    /// What the page complained of: exceptions, what its policy forbade, what could not be loaded.
    pub(crate) complaints: Vec<String>,
    _process: Leashed,
    dir: PathBuf,
}

impl Browser {
    /// Starts it.
    ///
    /// # Panics
    /// If there is no chromium: that is an error of the machine, not a reason to test nothing.
    pub(crate) fn start() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let program = find_program("chromium")
            .expect("no chromium: run scripts/install-chromium.sh, as make test does");
        let dir = make_dir(&format!("chromium{number}")).unwrap();
        let (to, from) = (dir.join("to"), dir.join("from"));
        let made = Command::new("mkfifo").arg(&to).arg(&from).status();
        assert!(made.unwrap().success(), "mkfifo");
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec \"$@\" 3<to 4>from", "sh"])
            .arg(program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", dir.join("profile").display()))
            .arg("about:blank")
            .current_dir(&dir)
            .env("HOME", &dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("log")).unwrap());
        let process = Leashed::start(&mut command).unwrap();
        // Each waits until the other side has opened it, too.
        let to = File::options().write(true).open(to).unwrap();
        let from = listen(&from);
        let mut browser = Self {
            to,
            from,
            session: String::new(),
            next: 1,
            complaints: Vec::new(),
            _process: process,
            dir,
        };
        browser.attach();
        browser
    }

    fn attach(&mut self) {
        let made = self.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let target = &made["targetId"];
        let attach = json!({ "targetId": target, "flatten": true });
        let attached = self.call("Target.attachToTarget", &attach);
        attached["sessionId"]
            .as_str()
            .unwrap()
            .clone_into(&mut self.session);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), &json!({}));
        }
    }

    /// Gives a command; its result.
    pub(crate) fn call(&mut self, method: &str, parameters: &Value) -> Value {
        let id = self.next;
        self.next += 1;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let text = format!("{message}\0");
        self.to.write_all(text.as_bytes()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(said) = self.from.recv_timeout(left) else {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                panic!("chromium does not answer {method}:\n{log}");
            };
            if said["id"] == json!(id) {
                assert!(said["error"].is_null(), "{method}: {said}");
                return said["result"].clone();
            }
            self.note(&said);
        }
    }

    fn note(&mut self, said: &Value) {
        let method = said["method"].as_str().unwrap_or_default();
        let is_error = said["params"]["entry"]["level"] == "error";
        if method == "Runtime.exceptionThrown" || (method == "Log.entryAdded" && is_error) {
            self.complaints.push(said["params"].to_string());
        }
    }

    /// A screen of this size, in CSS pixels.
    pub(crate) fn resize(&mut self, width: u32, height: u32) {
        let screen = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", &screen);
    }

    /// As a system that is set to dark colours, or light ones.
    pub(crate) fn set_dark(&mut self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let feature = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.call("Emulation.setEmulatedMedia", &feature);
    }

    /// Opens a page.
    pub(crate) fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", &json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
    }

    /// What a JavaScript expression is in the page.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", &asked);
        let failed = &answer["exceptionDetails"];
        assert!(failed.is_null(), "{expression}: {failed}");
        answer["result"]["value"].clone()
    }

    /// The text of every element that a selector finds, as it stands in the document.
    pub(crate) fn texts(&mut self, selector: &str) -> Vec<String> {
        let found =
            format!("[...document.querySelectorAll({selector:?})].map((e) => e.textContent)");
        let found = self.value(&found);
        let texts = found.as_array().unwrap().iter();
        texts
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    }

    /// Looks at an expression until it is true.
    pub(crate) fn wait_for(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.value(expression) != json!(true) {
            if Instant::now() >= deadline {
                let text = self.value("document.body.innerText");
                let complaints = &self.complaints;
                panic!("not in {PATIENCE:?}: {expression}\n{text}\n{complaints:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Writes what is to be seen as a PNG.
    pub(crate) fn take_picture(&mut self, file: &Path) {
        let taken = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        let data = taken["data"].as_str().unwrap();
        let engine = &base64::engine::general_purpose::STANDARD;
        let png = base64::Engine::decode(engine, data).unwrap();
        fs::write(file, png).unwrap();
    }
}

/// What comes through a pipe, message by message.
fn listen(pipe: &Path) -> Receiver<Value> {
    let (sender, receiver) = channel();
    let mut pipe = BufReader::new(File::open(pipe).unwrap());
    std::thread::spawn(move || {
        let mut message = Vec::new();
        while pipe.read_until(0, &mut message).is_ok_and(|n| n > 0) {
            message.pop();
            let value = serde_json::from_slice(&message).unwrap_or(Value::Null);
            message.clear();
            if sender.send(value).is_err() {
                return;
            }
        }
    });
    receiver
}
