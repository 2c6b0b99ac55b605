//! The control link: the guest's end of `contract::control`.

mod check;
mod entropy;
mod link;
mod requests;

pub(crate) use link::{report_failure, start};
pub(crate) use requests::Blank;
