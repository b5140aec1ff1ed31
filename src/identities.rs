//! `--identity`: who opens captures that are encrypted.

use std::path::PathBuf;

use anyhow::Context;
use tidegate_seal::{Identities, is_open_to_all};

#[derive(clap::Args)]
pub(crate) struct IdentityArgs {
    /// A file of age identities, as `age-keygen -o FILE` makes it, that opens a capture which is
    /// encrypted; may be given again and again.
    #[arg(long = "identity", value_name = "FILE", env = "TIDEGATE_IDENTITY")]
    #[arg(hide_env_values = true)]
    files: Vec<PathBuf>,
}

// === impl IdentityArgs ===

impl IdentityArgs {
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
