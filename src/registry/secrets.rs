//! What the pooler logs in to servers with, as the configuration has it.

use std::sync::Arc;

use pooler_protocol::auth::Secret;

use crate::config::{Config, SecretSource};
use crate::server::login::{Credentials, Reread};

/// What proves to servers that the pooler is `user`, for purposes of its own.
#[must_use]
pub fn credentials_of(config: &Config, user: &str) -> Arc<Credentials> {
    let (first, second) = (config.secret(user), config.second_secret(user));
    Arc::new(credentials(first, second, config.secret_source(user)))
}

/// Of these secrets, which come from there.
pub(crate) fn credentials(
    first: Option<&Secret>,
    second: Option<&Secret>,
    source: Option<SecretSource>,
) -> Credentials {
    let reread = source.map(|source| Reread {
        for_each_login: source.for_each_login(),
        read: Box::new(move || {
            let read = source.read();
            read.inspect_err(|why| tracing::warn!("a password cannot be read again: {why}"))
                .unwrap_or_default()
        }),
    });
    Credentials::new(first.cloned())
        .or(second.cloned())
        .with_reread(reread)
}
