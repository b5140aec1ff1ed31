//! What was asked before, by what it means: where the answers to it are kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use moka::sync::Cache;
use rustc_hash::FxBuildHasher;

use super::embed::Vector;
use crate::export::metrics::lock;
use crate::layer::cache::entry::Entry;
use crate::layer::cache::key::{Id, Key};

/// Bytes of a text that is known to be one that was asked before.
const SAME_BYTES: u32 = 256;
/// Bytes of a question beside its numbers and what it means.
const QUESTION_BYTES: usize = 160;

/// Questions of all routes and workers, up to so many bytes.
#[derive(Debug)]
pub(in crate::layer::cache) struct Index {
    same: Cache<Id, Same, FxBuildHasher>,
    /// Questions by what stands around them.
    around: Cache<Id, Arc<Questions>, FxBuildHasher>,
    /// The most that one group of them may take.
    group: u64,
}

/// Where the answer to a question is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) key: Key,
    /// How nearly that answers it; absent where it is the answer to the same text.
    pub(super) similarity: Option<f64>,
}

/// A question that was asked.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) numbers: Box<str>,
    pub(super) vector: Vector,
    /// Where its answer is kept.
    pub(super) key: Key,
}

#[derive(Clone, Debug)]
struct Same {
    /// The half of its key that it was not found by.
    check: [u8; 32],
    found: Found,
}

/// Questions with all else equal, the latest last.
#[derive(Debug, Default)]
struct Questions(Mutex<VecDeque<Known>>);

impl Index {
    pub(in crate::layer::cache) fn new(bytes: u64) -> Self {
        let of_same = bytes / 4;
        let same = Cache::builder().max_capacity(of_same).weigher(|_, _| SAME_BYTES);
        let weight = |_: &Id, questions: &Arc<Questions>| questions.weight();
        let of_groups = bytes - of_same;
        let around = Cache::builder().max_capacity(of_groups).weigher(weight);
        Self {
            same: same.build_with_hasher(FxBuildHasher),
            around: around.build_with_hasher(FxBuildHasher),
            group: of_groups / 2,
        }
    }

    /// Where the answer to this very text is kept.
    pub(super) fn same(&self, key: &Key) -> Option<Found> {
        let same = self.same.get(&key.id).filter(|same| same.check == key.check)?;
        Some(same.found)
    }

    pub(super) fn put_same(&self, key: &Key, found: Found) {
        self.same.insert(key.id, Same { check: key.check, found });
    }

    /// The nearest of the questions with the same around them, if it is as near as that and its answer
    /// is still to be had.
    pub(super) fn nearest(
        &self,
        around: &Id,
        vector: &Vector,
        numbers: &str,
        threshold: f64,
        get: impl Fn(&Key) -> Option<Arc<Entry>>,
    ) -> Option<(Found, Arc<Entry>)> {
        let questions = self.around.get(around)?;
        let questions = lock(&questions.0);
        let with_same = questions.iter().filter(|known| *known.numbers == *numbers);
        let near = with_same.filter_map(|known| {
            let similarity = vector.cosine(&known.vector)?;
            (similarity >= threshold).then_some((similarity, known.key))
        });
        let mut near: Vec<_> = near.collect();
        near.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        near.into_iter().find_map(|(similarity, key)| {
            Some((Found { key, similarity: Some(similarity) }, get(&key)?))
        })
    }

    /// Adds a question; of more than so many the oldest goes. So it does where a group would take more
    /// than half of all room: one that takes more than there is goes as a whole.
    pub(super) fn put(&self, around: Id, known: Known, most: usize) {
        let questions = self.around.get_with(around, Arc::default);
        {
            let mut questions = lock(&questions.0);
            questions.retain(|old| old.key != known.key);
            questions.push_back(known);
            let over = questions.len().saturating_sub(most);
            questions.drain(..over);
            let mut weight = weight(&questions);
            while weight > self.group
                && let Some(oldest) = questions.pop_front()
            {
                weight -= oldest.weight();
            }
        }
        // It is weighed when it is put.
        self.around.insert(around, questions);
    }

    /// Texts and groups of questions, and the bytes that all of them take.
    pub(in crate::layer::cache) fn size(&self) -> (u64, u64, u64) {
        self.same.run_pending_tasks();
        self.around.run_pending_tasks();
        let bytes = self.same.weighted_size() + self.around.weighted_size();
        (self.same.entry_count(), self.around.entry_count(), bytes)
    }
}

// === impl Known ===

impl Known {
    /// Bytes that it takes.
    fn weight(&self) -> u64 {
        (QUESTION_BYTES + self.numbers.len() + self.vector.bytes()) as u64
    }
}

// === impl Questions ===

impl Questions {
    fn weight(&self) -> u32 {
        u32::try_from(weight(&lock(&self.0))).unwrap_or(u32::MAX)
    }
}

/// Bytes that a group of questions takes.
fn weight(questions: &VecDeque<Known>) -> u64 {
    QUESTION_BYTES as u64 + questions.iter().map(Known::weight).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::head::ResponseHead;

    fn key(number: u8) -> Key {
        Key { id: [number; 32], check: [number; 32] }
    }

    fn vector(values: [f32; 2]) -> Vector {
        Vector::of(values.to_vec()).expect("it has a length")
    }

    fn known(number: u8, values: [f32; 2]) -> Known {
        Known { numbers: "".into(), vector: vector(values), key: key(number) }
    }

    fn entry(key: &Key) -> Arc<Entry> {
        let head = ResponseHead { status: 200, reason: "OK".into(), fields: Default::default() };
        let record = Default::default();
        Entry::new(*key, &head, &[], &record, Duration::from_secs(60)).into()
    }

    fn nearest(index: &Index, values: [f32; 2], numbers: &str, gone: Option<u8>) -> Option<u8> {
        let get = |key: &Key| (Some(key.id[0]) != gone).then(|| entry(key));
        let found = index.nearest(&[9; 32], &vector(values), numbers, 0.9, get)?;
        Some(found.0.key.id[0])
    }

    #[test]
    fn the_nearest_question_whose_answer_is_kept_is_found() {
        let index = Index::new(1 << 20);
        for (number, values) in [(1, [1.0, 0.0]), (2, [1.0, 0.2]), (3, [0.0, 1.0])] {
            index.put([9; 32], known(number, values), 10);
        }
        assert_eq!(nearest(&index, [2.0, 0.0], "", None), Some(1));
        assert_eq!(nearest(&index, [2.0, 0.0], "", Some(1)), Some(2));
        assert_eq!(nearest(&index, [-1.0, 0.0], "", None), None, "none is near");
        assert_eq!(nearest(&index, [2.0, 0.0], "7", None), None, "it names a number");
        let elsewhere =
            index.nearest(&[8; 32], &vector([1.0, 0.0]), "", 0.9, |key| Some(entry(key)));
        assert!(elsewhere.is_none(), "something else stands around it");
    }

    #[test]
    fn there_are_no_more_questions_than_so_many_and_each_once() {
        let index = Index::new(1 << 20);
        for number in [1, 1, 2, 3] {
            index.put([9; 32], known(number, [1.0, 0.0]), 2);
        }
        assert_eq!(index.around.get(&[9; 32]).map(|questions| lock(&questions.0).len()), Some(2));
        assert_eq!(nearest(&index, [1.0, 0.0], "", Some(3)), Some(2), "the oldest has gone");
    }

    #[test]
    fn a_group_that_takes_much_room_loses_its_oldest_questions_and_never_all() {
        let index = Index::new(64 << 10);
        let known = |number: u8| {
            let vector = Vector::of(vec![1.0; 512]).expect("it has a length");
            Known { numbers: "".into(), vector, key: key(number) }
        };
        let found = |number: u8| {
            let get = |key: &Key| (key.id[0] == number).then(|| entry(key));
            let vector = known(number).vector;
            index.nearest(&[9; 32], &vector, "", 0.9, get).is_some()
        };
        for number in 0..100 {
            index.put([9; 32], known(number), 500);
            index.size();
            assert!(found(number), "question {number}");
        }
        assert!(found(95) && !found(50), "the latest are kept");
    }

    #[test]
    fn all_of_it_takes_no_more_than_so_many_bytes() {
        let index = Index::new(64 << 10);
        for number in 0..200 {
            for _ in 0..20 {
                let values = vec![1.0; 512];
                let vector = Vector::of(values).expect("it has a length");
                let known = Known { numbers: "".into(), vector, key: key(number) };
                index.put([number; 32], known, 20);
            }
            index.put_same(&key(number), Found { key: key(number), similarity: None });
        }
        let (_, _, bytes) = index.size();
        assert!(bytes <= 64 << 10, "{bytes}");
    }
}
