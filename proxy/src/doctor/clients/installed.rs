//! The SDKs that are installed: packages of Python and of npm, as their installers leave them.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::clients::{CLIENTS, Package};

/// Folders that are looked through, at most, and entries of one.
const MAX_FOLDERS: usize = 200;
const MAX_ENTRIES: usize = 20_000;
/// Bytes of a package's own description that are read.
const MAX_FILE: u64 = 1 << 20;

/// A package that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Which.
    pub package: Package,
    /// Its version, as it says itself.
    pub version: String,
    /// Where.
    pub folder: PathBuf,
}

/// A version of three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Reads `v22.21.0`.
    pub fn read(text: &str) -> Option<Self> {
        let mut numbers = text.trim().trim_start_matches('v').split('.');
        let mut next = || numbers.next()?.parse().ok();
        Some(Self(next()?, next()?, next()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The SDKs of which something is known, in these folders.
pub fn installed(folders: &[PathBuf]) -> Vec<Found> {
    let found: BTreeSet<_> = folders.iter().flat_map(|folder| in_folder(folder)).collect();
    found.into_iter().collect()
}

fn in_folder(folder: &Path) -> Vec<Found> {
    let known: BTreeSet<_> = CLIENTS.iter().filter_map(|client| client.package).collect();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_ENTRIES);
    let of_python = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let (name, version) = name.strip_suffix(".dist-info")?.rsplit_once('-')?;
        // Names are compared as PEP 503 has it.
        let name = name.to_ascii_lowercase().replace(['_', '.'], "-");
        Some((name, version.to_owned()))
    });
    let of_python: Vec<_> = of_python.collect();
    let version = |package: &Package| match package {
        Package::Pypi(wanted) => {
            let mut all = of_python.iter();
            all.find(|(name, _)| name == wanted).map(|(_, version)| version.clone())
        }
        Package::Npm(name) => of_npm(&folder.join(name).join("package.json")),
    };
    let found = known.into_iter().filter_map(|package| {
        let version = version(&package)?;
        Some(Found { package, version, folder: folder.to_owned() })
    });
    found.collect()
}

fn of_npm(file: &Path) -> Option<String> {
    if fs::metadata(file).ok()?.len() > MAX_FILE {
        return None;
    }
    let text = fs::read_to_string(file).ok()?;
    let package: serde_json::Value = serde_json::from_str(&text).ok()?;
    package["version"].as_str().map(str::to_owned)
}

/// Where packages lie: in these folders and the environments in them, in those that variables name,
/// beside the programs in `PATH`, and above here.
pub(super) fn folders(variable: &dyn Fn(&str) -> Option<String>, more: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let listed = |name: &str| {
        let value = variable(name).unwrap_or_default();
        std::env::split_paths(&value).filter(|path| path.is_absolute()).collect::<Vec<_>>()
    };
    for root in more {
        found.push(root.clone());
        for below in ["", ".venv", "venv"] {
            environment(&root.join(below), &mut found);
        }
    }
    for root in ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().flat_map(|name| listed(name)) {
        environment(&root, &mut found);
    }
    found.extend(["PYTHONPATH", "NODE_PATH"].iter().flat_map(|name| listed(name)));
    for program in listed("PATH").iter().filter_map(|folder| folder.parent()) {
        environment(program, &mut found);
    }
    let here = std::env::current_dir().unwrap_or_default();
    found.extend(here.ancestors().map(|folder| folder.join("node_modules")));
    for below in [".venv", "venv"] {
        environment(&here.join(below), &mut found);
    }
    let mut seen = BTreeSet::new();
    found.retain(|folder| {
        let real = folder.canonicalize().ok();
        real.is_some_and(|real| real.is_dir() && seen.insert(real))
    });
    found.truncate(MAX_FOLDERS);
    found
}

/// The folders of packages in an environment of Python or a prefix of npm.
fn environment(root: &Path, found: &mut Vec<PathBuf>) {
    found.extend([root.join("node_modules"), root.join("lib/node_modules")]);
    for lib in ["lib", "lib64", "local/lib"].map(|name| root.join(name)) {
        let entries = fs::read_dir(lib).into_iter().flatten().flatten();
        let pythons =
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("python"));
        for python in pythons.take(MAX_FOLDERS) {
            found.extend(["site-packages", "dist-packages"].map(|name| python.path().join(name)));
        }
    }
}
