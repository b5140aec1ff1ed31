//! `--identity`: who opens captures that are encrypted.

use std::path::PathBuf;

use anyhow::Context;
use tidegate_seal::{Identities, is_open_to_all};

const VARIABLE: &str = "TIDEGATE_IDENTITY";

#[derive(clap::Args)]
pub(crate) struct IdentityArgs {
    /// A file of age identities, as `age-keygen -o FILE` makes it, that opens a capture which is
    /// encrypted; may be given again and again.
    #[arg(long = "identity", value_name = "FILE", env = VARIABLE)]
    #[arg(hide_env_values = true)]
    files: Vec<PathBuf>,
}

// === impl IdentityArgs ===

impl IdentityArgs {
    /// Refuses those of the command line where nothing is read that they could open. The variable may
    /// be there for other commands.
    pub(crate) fn refuse(&self) -> anyhow::Result<()> {
        let is_named = !self.files.is_empty() && std::env::var_os(VARIABLE).is_none();
        anyhow::ensure!(!is_named, "--identity goes with --from: it opens what is read there");
        Ok(())
    }

    /// Reads them all, and says on standard error which of them everybody may read.
    pub(crate) fn read(&self) -> anyhow::Result<Identities> {
        let identities = Identities::read(&self.files).context("--identity")?;
        for file in self.files.iter().filter(|file| is_open_to_all(file)) {
            eprintln!(
                "warning: everybody on this machine may read the identity {0}; chmod 600 {0}",
                file.display()
            );
        }
        Ok(identities)
    }
}
