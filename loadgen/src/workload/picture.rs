//! Pictures to be asked about: PNG, as large as is wanted, and a few different ones of each size.
//!
//! Providers count an image by its width and height, and not by what it shows; what takes time on the
//! way is its bytes. These are noise of 16 shades: half a byte for each point.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Different pictures of one size.
const KINDS: u64 = 8;

/// Those that were made so far, by size and kind.
static MADE: Mutex<BTreeMap<(u32, u64), Arc<str>>> = Mutex::new(BTreeMap::new());

/// A square picture in base64, so many points wide.
pub(super) fn picture(size: u32, draw: u64) -> Arc<str> {
    let kind = draw % KINDS;
    let mut made = MADE.lock().expect("whoever makes one does not panic");
    made.entry((size, kind)).or_insert_with(|| STANDARD.encode(png(size, kind)).into()).clone()
}

fn png(size: u32, seed: u64) -> Vec<u8> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut rows = vec![0; size.div_ceil(2) as usize * size as usize];
    random.fill(&mut rows[..]);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size, size);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Four);
    encoder.set_compression(png::Compression::Fast);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&rows));
    written.expect("a vector takes all bytes, and there are as many as the head says");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_as_large_as_it_is_said_to_be() {
        for size in [1, 31, 512] {
            let bytes = STANDARD.decode(&*picture(size, 3)).expect("base64");
            let mut reader =
                png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().expect("a PNG");
            assert_eq!((reader.info().width, reader.info().height), (size, size));
            let mut image = vec![0; reader.output_buffer_size().expect("it fits")];
            reader.next_frame(&mut image).expect("whole");
        }
        assert_eq!(picture(64, 1), picture(64, 1 + KINDS));
        assert_ne!(picture(64, 1), picture(64, 2));
    }
}
