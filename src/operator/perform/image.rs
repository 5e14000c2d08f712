//! The target must run the image that the source runs: a tag may mean another one there, and memory of one program is
//! nothing to another. Asks the agents, whose engines know what each container was made from. Network I/O.

use super::super::subject::Journal;
use super::{EffectError, Performer};
use crate::api::{ContainerRef, NodeName, PodIdentity, Reason};

/// Shown of a digest.
const SHORT: usize = 19;

impl Performer {
    /// Fails where the shadow's container was made from another image. What an engine does not tell is not compared.
    pub(super) async fn same_image(
        &self,
        journal: &Journal,
        node: &NodeName,
        shadow: &str,
        uid: &str,
    ) -> Result<(), EffectError> {
        let source = journal.subject.source_container();
        let container = ContainerRef {
            pod: PodIdentity { name: shadow.to_owned(), uid: uid.into(), ..source.pod.clone() },
            container: source.container.clone(),
        };
        let (here, there) =
            futures::future::join(self.image(&journal.subject.node, &source), self.image(node, &container))
                .await;
        match (here, there) {
            (Some(here), Some(there)) if here != there => {
                let from = &journal.subject.node;
                let message = format!(
                    "node {node} has another image under the same name ({} there, {} on {from}): pin the image by digest",
                    short(&there),
                    short(&here)
                );
                Err(EffectError::failed(Reason::ImageDiffers, message).final_if_again(journal))
            }
            _ => Ok(()),
        }
    }

    async fn image(&self, node: &NodeName, container: &ContainerRef) -> Option<String> {
        let asked = match self.ctx.agents.on(node) {
            Ok(agent) => agent.image(container).await,
            Err(error) => Err(error),
        };
        match asked {
            Ok(image) => image.image,
            Err(error) => {
                tracing::warn!(%node, pod = container.pod.name, %error, "its image is not known, and not compared");
                None
            }
        }
    }
}

fn short(image: &str) -> &str {
    image.char_indices().nth(SHORT).map_or(image, |(at, _)| &image[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_shown_by_its_beginning() {
        assert_eq!(short("sha256:0123456789abcdef0123"), "sha256:0123456789ab");
        assert_eq!(short("sha256:01"), "sha256:01");
    }
}
