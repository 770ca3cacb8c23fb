//! SHOW CONFIG: every key, what it is, what it would be, and where that comes from.

use super::super::sheet::{Sheet, is, text};
use crate::config::ShownKey;

/// SHOW CONFIG
pub(in super::super) static CONFIG: Sheet<ShownKey> = Sheet {
    columns: &[
        text("key", |k| is(&k.key)),
        text("value", |k| is(&k.value)),
        text("default", |k| is(&k.default)),
        text("changeable", |k| {
            is(if k.changeable { "yes" } else { "no" })
        }),
        text("source", |k| is(&k.source)),
        text("unit", |k| is(&k.unit)),
    ],
    lines: |desk, _| desk.registry.current().config.show(),
};
