//! Ctrl-C, counted: the first asks a run to end, the second to end at once.

use std::sync::LazyLock;

use tokio::sync::watch;

static PRESSED: LazyLock<watch::Sender<u32>> = LazyLock::new(|| {
    // Goose installs a handler of its own unless there is one, and its second Ctrl-C exits
    // without a report. Where ours cannot be installed, Ctrl-C does what it always did.
    let _ = ctrlc::set_handler(|| PRESSED.send_modify(|times| *times += 1));
    watch::Sender::new(0)
});

/// How often the process was asked to stop, by Ctrl-C or SIGTERM. The handler stands from the
/// first use on.
pub fn interrupts() -> watch::Receiver<u32> {
    PRESSED.subscribe()
}
