//! The simulated model server as a process of its own.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStderr, Stdio};

use super::{Wire, tidegate};

/// A simulator, which is gone with its value.
pub(crate) struct Simulator {
    pub(crate) url: String,
    child: Child,
    /// Held open: who says something to a pipe that nobody holds has failed.
    _said: Lines<BufReader<ChildStderr>>,
}

// === impl Simulator ===

impl Simulator {
    /// One with these flags, on a free port.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let own = ["sim", "--listen", "127.0.0.1:0"];
        let mut child = tidegate(own.into_iter().chain(flags.iter().copied()))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program is built");
        let said = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut said = said.lines();
        let address = said
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.strip_prefix("listening on ")?.to_owned()))
            .expect("it says where it listens");
        Self { url: format!("http://{address}"), child, _said: said }
    }

    /// What it says that it served.
    pub(crate) fn served(&self) -> serde_json::Value {
        let address = self.url.trim_start_matches("http://");
        let request = format!("GET /-/served HTTP/1.1\r\nhost: {address}\r\n\r\n");
        Wire::to(address.parse().expect("an address")).call(request).json()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // It has nothing to lose, and one that is gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
