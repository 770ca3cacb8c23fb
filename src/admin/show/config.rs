//! SHOW CONFIG and SHOW SETTINGS: every key, what it is, what it would be, and where that comes from.
//!
//! SHOW CONFIG has PgBouncer's four columns and no more: prometheus-community's exporter counts them, and
//! takes a fifth for an error that makes the whole pooler look down.

use super::super::sheet::{Sheet, is, text};
use crate::config::ShownKey;

macro_rules! config_columns {
    ($($more:expr),* $(,)?) => {
        &[
            text("key", |k: &ShownKey| is(&k.key)),
            text("value", |k| is(&k.value)),
            text("default", |k| is(&k.default)),
            text("changeable", |k| is(if k.changeable { "yes" } else { "no" })),
            $($more),*
        ]
    };
}

/// SHOW CONFIG
pub(in super::super) static CONFIG: Sheet<ShownKey> = Sheet {
    columns: config_columns![],
    lines: |desk, _| desk.registry.current().config.show(),
};

/// SHOW SETTINGS
pub(in super::super) static SETTINGS: Sheet<ShownKey> = Sheet {
    columns: config_columns![
        text("source", |k| is(&k.source)),
        text("unit", |k| is(&k.unit))
    ],
    lines: |desk, _| desk.registry.current().config.show(),
};
