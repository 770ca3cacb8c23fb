//! What the fuzz targets do with their input. Each module has one `run`, which panics if something
//! does not hold. `protocol/tests/fuzz_targets.rs` runs them, too, on bytes that a seed decides.

pub mod frames;
pub mod hba;
pub mod ledger;
pub mod mask;
pub mod messages;
pub mod opening;
pub mod route;
pub mod sasl;
pub mod startup;

/// Takes one byte off the front; 0 when there is none left.
fn take(data: &mut &[u8]) -> u8 {
    match data.split_first() {
        Some((first, rest)) => {
            *data = rest;
            *first
        }
        None => 0,
    }
}

/// Takes up to so many bytes off the front as the first of them says.
fn take_part<'a>(data: &mut &'a [u8]) -> &'a [u8] {
    let wanted = usize::from(take(data));
    let (part, rest) = data.split_at(wanted.min(data.len()));
    *data = rest;
    part
}
