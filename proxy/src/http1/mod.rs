//! Our own HTTP/1.1: heads read strictly, bodies relayed byte for byte.
//!
//! hyper carries what is not plain HTTP/1.1. Here no body is re-framed and no header map is built,
//! and one task owns both sockets of a call.

pub(crate) mod body;
pub(crate) mod conn;
pub(crate) mod framing;
pub(crate) mod hop;
pub(crate) mod parse;
pub(crate) mod upgrade;
pub(crate) mod write;
