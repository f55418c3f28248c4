//! The text of an error with its causes.

/// Returns an error with all its causes, in one line. A message of the API server ends the line: it is complete.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        if let Some(kube::Error::Api(status)) = error.downcast_ref::<kube::Error>() {
            text.push_str(&status.message);
            break;
        }
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to list the pods")]
    struct ListError(#[source] kube::Error);

    #[test]
    fn the_message_of_the_api_server_appears_once() {
        let status = kube::core::Status { message: "pods is forbidden".into(), code: 403, ..Default::default() };
        let error = ListError(kube::Error::Api(Box::new(status)));
        assert_eq!(chain(&error), "failed to list the pods: pods is forbidden");
    }
}
