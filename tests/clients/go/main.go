// The scenario of the client tests with the Go SDK (tests/clients/README.md).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

type facts map[string]any

func show(step string, facts facts) {
	if facts == nil {
		facts = map[string]any{}
	}
	facts["step"] = step
	line, _ := json.Marshal(facts)
	fmt.Println(string(line))
}

type authorised struct{ token string }

func (a authorised) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", "Bearer "+a.token)
	return http.DefaultTransport.RoundTrip(request)
}

func main() {
	ctx := context.Background()
	var lock sync.Mutex
	seen := []float64{}
	client := mcp.NewClient(&mcp.Implementation{Name: "clients", Version: "1"}, &mcp.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, request *mcp.ProgressNotificationClientRequest) {
			lock.Lock()
			defer lock.Unlock()
			seen = append(seen, request.Params.Progress)
		},
	})
	transport := &mcp.StreamableClientTransport{
		Endpoint:   os.Getenv("MCP_URL"),
		HTTPClient: &http.Client{Transport: authorised{os.Getenv("MCP_TOKEN")}},
	}
	options := &mcp.ClientSessionOptions{}
	if os.Getenv("MCP_ERA") == "legacy" {
		options.ProtocolVersion = "2025-11-25"
	}
	session, err := client.Connect(ctx, transport, options)
	if err != nil {
		log.Fatalf("failed to connect: %v", err)
	}
	show("connect", facts{"version": session.InitializeResult().ProtocolVersion})
	call := func(ctx context.Context, params *mcp.CallToolParams) (facts, error) {
		result, err := session.CallTool(ctx, params)
		if err != nil {
			return nil, err
		}
		return facts{"isError": result.IsError, "text": result.Content[0].(*mcp.TextContent).Text}, nil
	}
	must := func(name string, arguments any) facts {
		result, err := call(ctx, &mcp.CallToolParams{Name: name, Arguments: arguments})
		if err != nil {
			log.Fatalf("failed to call %s: %v", name, err)
		}
		return result
	}
	if seconds, err := strconv.Atoi(os.Getenv("MCP_LONG")); err == nil {
		show("long", must("slow", facts{"seconds": seconds}))
		return
	}
	list, err := session.ListTools(ctx, nil)
	if err != nil {
		log.Fatalf("failed to list the tools: %v", err)
	}
	names := []string{}
	for _, tool := range list.Tools {
		names = append(names, tool.Name)
	}
	show("list", facts{"tools": names})
	show("call", must("echo", facts{"text": "hello"}))
	show("null", must("echo", facts{"text": "hello", "note": nil}))
	show("refused", must("echo", facts{"text": 7}))
	show("large", must("echo", facts{"text": int64(725653563933458432)}))
	show("structured", must("structured", facts{"n": 7}))
	show("structured-refused", must("structured", facts{"n": -1}))
	show("structured-failed", must("structured", facts{"n": 0}))
	_, err = call(ctx, &mcp.CallToolParams{Name: "nothing"})
	var wire *jsonrpc.Error
	if errors.As(err, &wire) {
		show("unknown", facts{"code": wire.Code})
	}
	params := &mcp.CallToolParams{Name: "progress", Arguments: facts{"steps": 3}}
	params.SetProgressToken("p")
	if _, err := call(ctx, params); err != nil {
		log.Fatalf("failed to call with a progress token: %v", err)
	}
	// Notifications are handled beside the call.
	for done := 0; done < 3; time.Sleep(10 * time.Millisecond) {
		lock.Lock()
		done = len(seen)
		lock.Unlock()
	}
	show("progress", facts{"seen": seen})
	short, cancel := context.WithCancel(ctx)
	go func() {
		for must("started", facts{})["text"] == "0" {
			time.Sleep(100 * time.Millisecond)
		}
		cancel()
	}()
	_, err = call(short, &mcp.CallToolParams{Name: "slow", Arguments: facts{"seconds": 60}})
	show("cancel", facts{"isError": err != nil, "text": fmt.Sprint(err)})
	cancelled := must("cancelled", facts{})
	for cancelled["text"] == "0" {
		time.Sleep(100 * time.Millisecond)
		cancelled = must("cancelled", facts{})
	}
	show("cancelled", cancelled)
	show("restart", nil)
	bufio.NewReader(os.Stdin).ReadString('\n')
	show("again", must("echo", facts{"text": "again"}))
}
