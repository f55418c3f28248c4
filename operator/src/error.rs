//! The text of an error with its causes.

use std::error::Error;

use mcp_fleet_core::error::{BoxError, chain_until};

/// Returns an error with all its causes, in one line. A message of the API server ends the line: it is complete.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    chain_until(error, |cause| match cause.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => Some(status.message.clone()),
        _ => None,
    })
}

/// Returns an error as its text, for parts that do not know the client of the API server.
pub(crate) fn boxed(error: &(dyn Error + 'static)) -> BoxError {
    chain(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to list the pods")]
    struct ListError(#[source] kube::Error);

    fn forbidden() -> kube::Error {
        let status = kube::core::Status { message: "pods is forbidden".into(), code: 403, ..Default::default() };
        kube::Error::Api(Box::new(status))
    }

    #[test]
    fn the_message_of_the_api_server_appears_once() {
        assert_eq!(chain(&ListError(forbidden())), "failed to list the pods: pods is forbidden");
        assert_eq!(boxed(&forbidden()).to_string(), "pods is forbidden");
    }
}
