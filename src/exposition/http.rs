//! HTTP for the endpoint: one request a connection, and nothing that a slow or hostile client could
//! hold for long.
//!
//! Bounds: [`CONNECTIONS_MAX`] at a time, of which [`SCRAPES_MAX`] hold rendered metrics and [`VIEWS_MAX`] a
//! status; the head of a request within [`HEAD_MAX`], the whole exchange within [`EXCHANGE_MAX`]. Bodies of
//! requests are not read.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName,
    HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::render::Format;
use super::{Site, hosts, page, status};

/// Connections at a time; more wait in the kernel.
const CONNECTIONS_MAX: usize = 64;

/// Scrapes under way at a time: with hundreds of pools the text takes megabytes until it is sent.
const SCRAPES_MAX: usize = 8;

/// Viewers at a time who are being answered. All get one text, of which a slow one may still have an older.
/// They take no place from a scrape.
const VIEWS_MAX: usize = 16;

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

const JSON: &str = "application/json";

const HTML: &str = "text/html; charset=utf-8";

/// What stands in place of the status where it is not to be seen.
const OFF: &str = "There is no status page: [metrics] status_page is false.";

/// What whoever asked for the status by another name is told.
const NOT_BY_THIS_NAME: &str = "The status is not served by this name. Ask by the address, or put the name into \
     [metrics] hosts of the pooler's configuration: hosts = [\"status.example\"].";

const PLAIN: &str = "text/plain; charset=utf-8";

/// One of [`SCRAPES_MAX`] or [`VIEWS_MAX`]: held by the connection and by the rendering, which may outlive it.
type Permit = Arc<OwnedSemaphorePermit>;

/// Takes connections for ever.
pub(super) async fn accept_all(listener: TcpListener, site: Arc<Site>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let places = Arc::new(Places {
        scrapes: Arc::new(Semaphore::new(SCRAPES_MAX)),
        views: Arc::new(Semaphore::new(VIEWS_MAX)),
    });
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (site, places) = (Arc::clone(&site), Arc::clone(&places));
                tokio::spawn(async move {
                    serve(stream, site, places).await;
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

/// Who may be answered at a time.
struct Places {
    scrapes: Arc<Semaphore>,
    views: Arc<Semaphore>,
}

impl Places {
    /// A place for a request of `path`; nothing if there is none, or none is needed.
    fn take(&self, path: &str) -> Option<Permit> {
        let places = match path {
            METRICS => &self.scrapes,
            STATUS => &self.views,
            _ => return None,
        };
        Arc::clone(places).try_acquire_owned().ok().map(Arc::new)
    }
}

async fn serve(stream: TcpStream, site: Arc<Site>, places: Arc<Places>) {
    // Held until the connection ends: until then the text is in memory.
    let held: Cell<Option<Permit>> = Cell::new(None);
    let service = service_fn(move |request: Request<Incoming>| {
        let permit = places.take(request.uri().path());
        held.set(permit.clone());
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
    if matches!(path, "/" | STATUS) && !is_asked_by_our_name(site, request) {
        return plain(StatusCode::MISDIRECTED_REQUEST, NOT_BY_THIS_NAME);
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
        STATUS if !site.has_page() => plain(StatusCode::NOT_FOUND, OFF),
        STATUS => {
            let Some(permit) = permit else {
                let line = "Too many look at the status.";
                return plain(StatusCode::SERVICE_UNAVAILABLE, line);
            };
            match status::text(Arc::clone(site), permit).await {
                Some(text) => response(StatusCode::OK, JSON, text),
                None => {
                    tracing::error!("BUG: the status cannot be collected");
                    plain(StatusCode::INTERNAL_SERVER_ERROR, "Cannot collect.")
                }
            }
        }
        "/healthz" => plain(StatusCode::OK, "alive"),
        "/readyz" => match site.unready() {
            None => plain(StatusCode::OK, "ready"),
            Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, &why),
        },
        _ if !site.has_page() => plain(StatusCode::OK, &front(site)),
        _ => status_page(),
    }
}

/// See [`hosts`]. Who says no name is no browser. Probes and scrapers go by whatever name they like: they are not asked.
fn is_asked_by_our_name<B>(site: &Site, request: &Request<B>) -> bool {
    let current = site.registry.current();
    let more = &current.config.metrics.hosts;
    let mut said = request.headers().get_all(HOST).iter();
    let in_uri = request.uri().authority().map(|it| it.as_str());
    said.all(|host| host.to_str().is_ok_and(|host| hosts::is_ours(host, more)))
        && in_uri.is_none_or(|host| hosts::is_ours(host, more))
}

fn status_page() -> Response<Full<Bytes>> {
    let page = page::page();
    let mut response = response(
        StatusCode::OK,
        HTML,
        Bytes::from_static(page.html.as_bytes()),
    );
    let policy = HeaderValue::from_str(&page.policy);
    let policy = policy.expect("BUG: a policy that is no header");
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
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
         /healthz   whether the process is alive\n\
         /readyz    whether new clients should come here: {}\n\n{OFF}",
        env!("CARGO_PKG_VERSION"),
        ready.as_deref().unwrap_or("yes"),
    )
}

fn plain(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    response(status, PLAIN, format!("{line}\n"))
}

fn response(
    status: StatusCode,
    kind: &'static str,
    text: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // For browsers: it is what it says it is, and no other site's script or picture.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(policy, HeaderValue::from_static("same-origin"));
    response
}
