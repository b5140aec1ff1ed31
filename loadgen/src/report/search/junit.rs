//! What a search came to as JUnit's XML: one case.

use super::SearchReport;
use crate::report::Decision;
use crate::report::html::text::Escaped;

impl SearchReport {
    /// The verdict as a JUnit document.
    pub fn junit(&self) -> String {
        let said = Escaped(&self.sentence);
        let (failures, errors, result) = match self.decision() {
            Decision::Pass => (0, 0, format!("<system-out>{said}</system-out>")),
            Decision::Fail => {
                (1, 0, format!("<failure type=\"missed\" message=\"{said}\">{said}</failure>"))
            }
            other => {
                let word = other.as_str();
                (0, 1, format!("<error type=\"{word}\" message=\"{said}\">{said}</error>"))
            }
        };
        let counts =
            format!("tests=\"1\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"0\"");
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"tidegate load\" {counts}>\n\
             <testsuite name=\"search for the capacity of {}\" {counts} timestamp=\"{}\">\n\
             <testcase classname=\"tidegate.load\" name=\"the capacity\">{result}</testcase>\n\
             </testsuite>\n</testsuites>\n",
            Escaped(&self.target),
            self.began.strftime("%Y-%m-%dT%H:%M:%S")
        )
    }
}
