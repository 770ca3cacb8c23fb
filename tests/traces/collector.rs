//! A small collector: OTLP over HTTP as far as the pooler and OpenTelemetry's libraries send it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use pooler::demo::free_port;
use prost::Message;

use crate::support::{Builder, wait_until};

/// What the collector says to a request.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    /// This status, with these lines of a head, and this body.
    Status(u16, &'static str, Vec<u8>),
    /// Nothing, and it closes after so long.
    Nothing(Duration),
}

/// A request that it got.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) head: String,
    pub(crate) request: ExportTraceServiceRequest,
}

#[derive(Default)]
struct Shared {
    got: Vec<Got>,
    /// What it says next; then 200.
    says: VecDeque<Says>,
}

fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// It takes connections as long as the process lives.
pub(crate) struct Collector {
    pub(crate) port: u16,
    shared: Arc<Mutex<Shared>>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = (0..5).find_map(|_| bind(free_port().ok()?).ok());
        Self::at(listener.unwrap())
    }

    /// On a port that nobody listens on.
    pub(crate) fn on(port: u16) -> Self {
        Self::at(bind(port).unwrap())
    }

    fn at(listener: TcpListener) -> Self {
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let all = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&all);
                thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { port, shared }
    }

    /// Answers the next requests so, one after the other.
    pub(crate) fn say(&self, says: impl IntoIterator<Item = Says>) {
        self.shared.lock().unwrap().says.extend(says);
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.shared.lock().unwrap().got.clone()
    }

    /// Every span that it got.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let got = self.got().into_iter();
        let resources = got.flat_map(|got| got.request.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// The spans of a trace, once there are so many besides those of waiting: a server may just be cleaned.
    pub(crate) fn wait_trace(&self, trace_id: &str, count: usize) -> Vec<Span> {
        let waits = |span: &Span| matches!(&*span.name, "wait" | "connect");
        self.wait_spans(trace_id, count, |span| !waits(span))
    }

    /// The spans of a trace, once there are so many.
    pub(crate) fn wait_whole_trace(&self, trace_id: &str, count: usize) -> Vec<Span> {
        self.wait_spans(trace_id, count, |_| true)
    }

    fn wait_spans(
        &self,
        trace_id: &str,
        count: usize,
        counts: impl Fn(&Span) -> bool,
    ) -> Vec<Span> {
        let mut spans = Vec::new();
        wait_until(
            &format!("the collector has {count} spans of {trace_id}"),
            || {
                spans = self.spans();
                spans.retain(|span| hex(&span.trace_id) == trace_id && counts(span));
                spans.len() >= count
            },
        );
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

/// A pooler that sends its traces to a collector on this port.
pub(crate) fn toward(port: u16) -> impl Fn(Builder) -> Builder {
    move |builder| {
        let section = format!("[tracing]\notlp_endpoint = \"http://127.0.0.1:{port}\"\n");
        builder.section(&section)
    }
}

/// Until the other side closes; a test that has ended needs no answer.
fn serve(stream: TcpStream, shared: &Mutex<Shared>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>())
        });
        let mut body = vec![0; length?.ok()?];
        reader.read_exact(&mut body).ok()?;
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        let request = ExportTraceServiceRequest::decode(&*body).unwrap();
        let says = {
            let mut shared = shared.lock().unwrap();
            let says = shared.says.pop_front();
            // What was not taken may come again.
            if says.is_none() || matches!(says, Some(Says::Status(200, ..))) {
                shared.got.push(Got { head, request });
            }
            says.unwrap_or(Says::Status(200, "", Vec::new()))
        };
        match says {
            Says::Status(status, lines, body) => {
                let head = format!(
                    "HTTP/1.1 {status} x\r\nContent-Length: {}\r\n{lines}\r\n",
                    body.len()
                );
                let stream = reader.get_mut();
                stream.write_all(&[head.as_bytes(), &body].concat()).ok()?;
            }
            Says::Nothing(limit) => {
                thread::sleep(limit);
                return None;
            }
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What an attribute says, as text; nothing if it is not there.
pub(crate) fn attribute<'a>(of: &'a [KeyValue], key: &str) -> Option<String> {
    let found: Option<&'a KeyValue> = of.iter().find(|pair| pair.key == key);
    found.map(
        |pair| match pair.value.as_ref().and_then(|any| any.value.as_ref()) {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::BoolValue(flag)) => flag.to_string(),
            other => panic!("{key} is {other:?}"),
        },
    )
}

pub(crate) fn seconds(span: &Span) -> f64 {
    let nanos = span
        .end_time_unix_nano
        .checked_sub(span.start_time_unix_nano);
    Duration::from_nanos(nanos.expect("a span ends after it begins")).as_secs_f64()
}
