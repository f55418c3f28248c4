import io.modelcontextprotocol.json.McpJsonDefaults;
import io.modelcontextprotocol.json.McpJsonMapper;
import io.modelcontextprotocol.server.McpServer;
import io.modelcontextprotocol.server.transport.StdioServerTransportProvider;
import io.modelcontextprotocol.spec.McpSchema.CallToolRequest;
import io.modelcontextprotocol.spec.McpSchema.CallToolResult;
import io.modelcontextprotocol.spec.McpSchema.ServerCapabilities;
import io.modelcontextprotocol.spec.McpSchema.Tool;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.util.HexFormat;
import java.util.Map;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** A server on the Java SDK that signs texts with a secret key, which it has in its environment. */
public final class Server {
    private static final String INPUT = """
            {"type": "object", "properties": {"text": {"type": "string", "description": "What is signed"}}, "required": ["text"]}
            """;
    private static final String OUTPUT = """
            {"type": "object", "properties": {"signature": {"type": "string"}}, "required": ["signature"]}
            """;

    private Server() {}

    public static void main(String[] arguments) {
        McpJsonMapper json = McpJsonDefaults.getMapper();
        Tool sign = Tool.builder("sign", json, INPUT)
                .title("Sign")
                .description("Signs a text with HMAC-SHA256")
                .outputSchema(json, OUTPUT)
                .build();
        McpServer.sync(new StdioServerTransportProvider(json))
                .serverInfo("signer", "1.0.0")
                .instructions("Sign what has to be signed.")
                .capabilities(ServerCapabilities.builder().tools(false).build())
                .toolCall(sign, (exchange, request) -> sign(request))
                .build();
    }

    private static CallToolResult sign(CallToolRequest request) {
        String text = (String) request.arguments().get("text");
        if (text.isEmpty()) {
            return CallToolResult.builder().addTextContent("There is nothing to sign.").isError(true).build();
        }
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(System.getenv("SIGNING_KEY").getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
            String signature = HexFormat.of().formatHex(mac.doFinal(text.getBytes(StandardCharsets.UTF_8)));
            return CallToolResult.builder()
                    .addTextContent(signature)
                    .structuredContent(Map.of("signature", signature))
                    .build();
        } catch (GeneralSecurityException error) {
            throw new IllegalStateException(error);
        }
    }
}
