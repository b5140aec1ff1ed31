//! A JSON reader that is fed in pieces and never holds a whole document.
