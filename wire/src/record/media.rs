//! What a call carries beside text: images, audio, videos and documents, by number and size.

use serde::{Deserialize, Serialize};

use super::line::Line;

/// Media that went in and came out. Bytes are those of the decoded content; what is only linked to
/// counts without bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Media {
    /// Images in the request.
    #[serde(rename = "tidegate.input.images", skip_serializing_if = "Option::is_none")]
    pub images: Option<u64>,
    /// Their bytes.
    #[serde(rename = "tidegate.input.image_bytes", skip_serializing_if = "Option::is_none")]
    pub image_bytes: Option<u64>,
    /// Pieces of audio in the request.
    #[serde(rename = "tidegate.input.audios", skip_serializing_if = "Option::is_none")]
    pub audios: Option<u64>,
    /// Their bytes.
    #[serde(rename = "tidegate.input.audio_bytes", skip_serializing_if = "Option::is_none")]
    pub audio_bytes: Option<u64>,
    /// Videos in the request.
    #[serde(rename = "tidegate.input.videos", skip_serializing_if = "Option::is_none")]
    pub videos: Option<u64>,
    /// Their bytes.
    #[serde(rename = "tidegate.input.video_bytes", skip_serializing_if = "Option::is_none")]
    pub video_bytes: Option<u64>,
    /// Documents in the request.
    #[serde(rename = "tidegate.input.documents", skip_serializing_if = "Option::is_none")]
    pub documents: Option<u64>,
    /// Their bytes.
    #[serde(rename = "tidegate.input.document_bytes", skip_serializing_if = "Option::is_none")]
    pub document_bytes: Option<u64>,
    /// Images that were made.
    #[serde(rename = "tidegate.output.images", skip_serializing_if = "Option::is_none")]
    pub images_made: Option<u64>,
    /// Videos that were made.
    #[serde(rename = "tidegate.output.videos", skip_serializing_if = "Option::is_none")]
    pub videos_made: Option<u64>,
    /// Seconds of video asked for and made, over all videos of the call.
    #[serde(rename = "tidegate.output.video_seconds", skip_serializing_if = "Option::is_none")]
    pub video_seconds: Option<f64>,
}

impl Media {
    pub(super) fn write(&self, line: &mut Line<'_>) {
        line.plain("tidegate.input.images", self.images);
        line.plain("tidegate.input.image_bytes", self.image_bytes);
        line.plain("tidegate.input.audios", self.audios);
        line.plain("tidegate.input.audio_bytes", self.audio_bytes);
        line.plain("tidegate.input.videos", self.videos);
        line.plain("tidegate.input.video_bytes", self.video_bytes);
        line.plain("tidegate.input.documents", self.documents);
        line.plain("tidegate.input.document_bytes", self.document_bytes);
        line.plain("tidegate.output.images", self.images_made);
        line.plain("tidegate.output.videos", self.videos_made);
        line.seconds("tidegate.output.video_seconds", self.video_seconds);
    }
}
