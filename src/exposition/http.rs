//! HTTP for the endpoint: one request a connection, and nothing that a slow or hostile client could
//! hold for long.
//!
//! Bounds: [`CONNECTIONS_MAX`] at a time, of which [`SCRAPES_MAX`] hold a rendered text; the head of
//! a request within [`HEAD_MAX`], the whole exchange within [`EXCHANGE_MAX`]. Bodies of requests are
//! not read.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Site;
use super::render::Format;

/// Connections at a time; more wait in the kernel.
const CONNECTIONS_MAX: usize = 64;

/// Scrapes under way at a time: with hundreds of pools the text takes megabytes until it is sent.
const SCRAPES_MAX: usize = 8;

/// How long a client may take to send the head of its request.
pub(super) const HEAD_MAX: Duration = Duration::from_millis(if cfg!(test) { 1000 } else { 5000 });

/// How long a connection lasts at most.
const EXCHANGE_MAX: Duration = Duration::from_secs(30);

/// Of a request's head, in bytes, and of what is read at a time.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long accepting pauses when the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

const METRICS: &str = "/metrics";

const STATUS: &str = "/status.json";

const PLAIN: &str = "text/plain; charset=utf-8";

/// One of [`SCRAPES_MAX`]: held by the connection and by the rendering, which may outlive it.
type Permit = Arc<OwnedSemaphorePermit>;

/// Takes connections for ever.
pub(super) async fn accept_all(listener: TcpListener, site: Arc<Site>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let scrapes = Arc::new(Semaphore::new(SCRAPES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (site, scrapes) = (Arc::clone(&site), Arc::clone(&scrapes));
                tokio::spawn(async move {
                    serve(stream, site, scrapes).await;
                    drop(permit);
                });
            }
            Err(e) => {
                tracing::debug!("metrics: accept: {e}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, site: Arc<Site>, scrapes: Arc<Semaphore>) {
    // Held until the connection ends: until then the text is in memory.
    let held: Cell<Option<Permit>> = Cell::new(None);
    let service = service_fn(move |request: Request<Incoming>| {
        let permit = Arc::clone(&scrapes).try_acquire_owned().ok().map(Arc::new);
        if request.uri().path() == METRICS {
            held.set(permit.clone());
        }
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(reply(&site, &request, permit).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(EXCHANGE_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::debug!("metrics: {e}"),
        Err(_elapsed) => tracing::debug!("metrics: a client took longer than {EXCHANGE_MAX:?}"),
    }
}

/// Dropped midway, a rendering goes on to its end and is thrown away.
async fn reply<B>(
    site: &Arc<Site>,
    request: &Request<B>,
    permit: Option<Permit>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !matches!(path, "/" | METRICS | STATUS | "/healthz" | "/readyz") {
        return plain(StatusCode::NOT_FOUND, "Not found. See / for what is here.");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD.");
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    match path {
        METRICS => {
            let Some(permit) = permit else {
                let line = "Too many scrapes are under way.";
                return plain(StatusCode::SERVICE_UNAVAILABLE, line);
            };
            let accepts = request.headers().get_all(ACCEPT).iter();
            let format = Format::accepted(accepts.filter_map(|value| value.to_str().ok()));
            metrics(Arc::clone(site), format, permit).await
        }
        STATUS => match &site.desk {
            Some(desk) => response(StatusCode::OK, "application/json", desk.status().await),
            None => plain(StatusCode::NOT_FOUND, "There is no status here."),
        },
        "/healthz" => plain(StatusCode::OK, "alive"),
        "/readyz" => match site.unready() {
            None => plain(StatusCode::OK, "ready"),
            Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, &why),
        },
        _ => plain(StatusCode::OK, &front(site)),
    }
}

/// Apart from the event loop: with hundreds of pools rendering takes a tenth of a second, and the
/// main thread has signals and the workers' sweeps to see to.
async fn metrics(site: Arc<Site>, format: Format, permit: Permit) -> Response<Full<Bytes>> {
    let rendering = tokio::task::spawn_blocking(move || {
        let text = site.exporter.render(format);
        drop(permit);
        text
    });
    match rendering.await {
        Ok(Ok(text)) => response(StatusCode::OK, format.content_type(), text),
        // Writing to memory does not fail: what is left is a bug.
        Ok(Err(_)) | Err(_) => {
            tracing::error!("BUG: the metrics cannot be rendered");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "Cannot render.")
        }
    }
}

fn front(site: &Site) -> String {
    let ready = site.unready();
    format!(
        "pooler {}\n\n\
         /metrics   numbers for Prometheus\n\
         /status.json  pools, who waits for whom, and hosts: as SHOW POOLS, QUEUE and HOSTS\n\
         /healthz   whether the process is alive\n\
         /readyz    whether new clients should come here: {}",
        env!("CARGO_PKG_VERSION"),
        ready.as_deref().unwrap_or("yes"),
    )
}

fn plain(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    response(status, PLAIN, format!("{line}\n"))
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
