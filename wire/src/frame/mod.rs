//! How a stream is cut into the pieces that mean something.
