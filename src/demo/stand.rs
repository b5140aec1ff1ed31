//! A sidecar that is put under load, and the files that tell of it.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};

use super::compare::{self, Recorded, Sent};
use super::process::{self, Server};
use super::{Files, Size, wait_for_records};

pub(super) struct Stand {
    name: String,
    sidecar: Server,
    address: SocketAddr,
    pub(super) admin: SocketAddr,
    calls: PathBuf,
    records: PathBuf,
}

impl Stand {
    /// A sidecar with this configuration.
    pub(super) async fn start(name: String, config: &Path, files: &Files) -> anyhow::Result<Self> {
        let records = files.0.join(format!("{name}-sidecar.jsonl"));
        let calls = files.0.join(format!("{name}-load.jsonl"));
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is no text");
        let (config, told) = (text(config)?, text(&records)?);
        let listen = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let what = ["proxy", "--config", &config, "--records", &told];
        let sidecar = Server::start("sidecar", &[&what[..], &listen].concat())?;
        let address = sidecar.address("listening on ").await?;
        let admin = sidecar.address("admin on ").await?;
        Ok(Self { name, sidecar, address, admin, calls, records })
    }

    /// Puts it under load by what these arguments say beside how much, and waits for the end of that.
    pub(super) async fn load(&self, size: Size, what: &[&OsStr]) -> anyhow::Result<()> {
        let load = process::command()?
            .args(["load", "--target", &format!("http://{}", self.address)])
            .args(["--users", &size.users.to_string()])
            .args(["--duration", &format!("{}ms", size.duration.as_millis())])
            .args(what)
            .arg("--records")
            .arg(&self.calls)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .await
            .context("cannot start the load generator")?;
        let said = String::from_utf8_lossy(&load.stderr);
        // On a busy machine its times say less; its counts do not.
        let is_late = load.status.code() == Some(crate::Exit::Invalid as i32);
        ensure!(
            load.status.success() || is_late,
            "the load on the side `{}` ended with {}:\n{said}",
            self.name,
            load.status,
        );
        Ok(())
    }

    /// What the last load has sent, and all that was recorded so far, once each call has its record.
    pub(super) async fn books(&self, others: usize) -> anyhow::Result<(Sent, Recorded)> {
        let sent = compare::sent(&self.calls)?;
        wait_for_records(&self.records, others + sent.len()).await?;
        Ok((sent, compare::recorded(&self.records)?))
    }

    /// Ends it, and reads what both of its ends say.
    pub(super) async fn end(self) -> anyhow::Result<(Sent, Recorded)> {
        let books = self.books(0).await?;
        self.sidecar.interrupt().await?;
        Ok(books)
    }
}

// === impl Files ===

impl Files {
    /// Writes a file, or writes it anew at once.
    pub(super) fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let (path, next) = (self.0.join(name), self.0.join(format!("{name}.next")));
        std::fs::write(&next, text)
            .and_then(|()| std::fs::rename(&next, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}
