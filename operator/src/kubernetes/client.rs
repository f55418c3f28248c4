//! The client of the API server, which makes the field managers of objects readable before they are decoded, and gives each
//! call a time limit.
//!
//! Every client may write `metadata.managedFields`, on every object that it may write, and Kubernetes stores values there
//! that our types cannot read: a `time` beyond the year 9999, or `fieldsV1` nested deeper than a JSON parser follows. One
//! such object would break the lists and watches of its kind for all tenants. Of field managers, only who owns which
//! field is read here (`apply`).

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Response};
use http_body::Body;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use kube::Client;
use kube::client::ClientBuilder;
use tower::util::{MapRequestLayer, MapResponseLayer};

use super::connections::ConnectionsLayer;
use super::managed_fields::Filter;
use super::requests::count;
use super::time_limit::TimeLimitLayer;

/// Returns a client for the API server that the environment names.
pub async fn client() -> Result<Client, kube::Error> {
    let config = kube::Config::infer().await.map_err(kube::Error::InferConfig)?;
    from_config(config)
}

/// Returns a client for the API server of `config`.
pub fn from_config(config: kube::Config) -> Result<Client, kube::Error> {
    let filter = MapResponseLayer::new(with_readable_managers);
    let counted = MapRequestLayer::new(count);
    let connections = ConnectionsLayer::new(&config)?;
    let client = ClientBuilder::try_from(config)?.with_layer(&connections).with_layer(&TimeLimitLayer);
    Ok(client.with_layer(&filter).with_layer(&counted).build())
}

/// Filters the field managers of the objects in a JSON body, while it arrives. Other bodies pass unchanged.
fn with_readable_managers<B>(response: Response<B>) -> Response<UnsyncBoxBody<Bytes, B::Error>>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let (mut head, body) = response.into_parts();
    if !is_plain_json(&head.headers) {
        return Response::from_parts(head, body.boxed_unsync());
    }
    head.headers.remove(CONTENT_LENGTH);
    let mut filter = Filter::default();
    let body = body.map_frame(move |frame| frame.map_data(|data| filter.filter(&data)));
    Response::from_parts(head, body.boxed_unsync())
}

fn is_plain_json(headers: &HeaderMap) -> bool {
    let json = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    json && !headers.contains_key(CONTENT_ENCODING)
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn response(content_type: &'static str) -> Response<Full<Bytes>> {
        let body = Full::from(r#"{"metadata":{"managedFields":[{"time":1}]}}"#);
        Response::builder().header(CONTENT_TYPE, content_type).header(CONTENT_LENGTH, 43).body(body).unwrap()
    }

    #[tokio::test]
    async fn json_is_filtered_and_other_answers_pass() {
        let filtered = with_readable_managers(response("application/json"));
        assert!(!filtered.headers().contains_key(CONTENT_LENGTH));
        let body = filtered.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"metadata":{"managedFields":[{}]}}"#);
        let passed = with_readable_managers(response("text/plain")).into_body().collect().await.unwrap().to_bytes();
        assert_eq!(passed.len(), 43);
    }
}
