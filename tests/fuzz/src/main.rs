//! Names the targets; with a target and a folder, writes the target's seeds into it.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let [target, folder] = arguments.as_slice() {
        fs::create_dir_all(folder)?;
        for (name, seed) in tidegate_fuzz::seeds::of(target) {
            fs::write(Path::new(folder).join(name), seed)?;
        }
    } else {
        tidegate_fuzz::TARGETS.iter().for_each(|(name, _)| println!("{name}"));
    }
    Ok(())
}
