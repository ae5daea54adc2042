//! Which code an error becomes.
//!
//! Owns the one table. Invariant: only the code crosses for containerd; the text is for whoever reads its log.

use crate::error::{Error, ErrorKind};
use tonic::{Code, Status};

/// The status of an error.
pub fn of(error: &Error) -> Status {
    let code = match error.kind() {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::DataLoss => Code::DataLoss,
        ErrorKind::Internal => Code::Internal,
    };
    Status::new(code, error.to_string())
}
