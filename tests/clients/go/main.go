// The scenarios of the client tests with the Go SDK (tests/clients/README.md).
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
	"strings"
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

// fromFile sends each request with the token in a file, which is read again if it is refused. What is answered with 401 has not
// been done, so repeating it is safe.
type fromFile struct {
	path  string
	lock  sync.Mutex
	token string
}

func (f *fromFile) read() error {
	token, err := os.ReadFile(f.path)
	f.lock.Lock()
	defer f.lock.Unlock()
	f.token = string(token)
	return err
}

func (f *fromFile) current() authorised {
	f.lock.Lock()
	defer f.lock.Unlock()
	return authorised{f.token}
}

func (f *fromFile) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := f.current().RoundTrip(request)
	if err != nil || response.StatusCode != http.StatusUnauthorized {
		return response, err
	}
	response.Body.Close()
	if err := f.read(); err != nil {
		return nil, err
	}
	again := request.Clone(request.Context())
	if request.GetBody != nil {
		if again.Body, err = request.GetBody(); err != nil {
			return nil, err
		}
	}
	return f.current().RoundTrip(again)
}

func connect(client *mcp.Client, transport http.RoundTripper) (*mcp.ClientSession, error) {
	options := &mcp.ClientSessionOptions{}
	if os.Getenv("MCP_ERA") == "legacy" {
		options.ProtocolVersion = "2025-11-25"
	}
	return client.Connect(context.Background(), &mcp.StreamableClientTransport{
		Endpoint:   os.Getenv("MCP_URL"),
		HTTPClient: &http.Client{Transport: transport},
	}, options)
}

func echo(session *mcp.ClientSession, text string) (facts, error) {
	params := &mcp.CallToolParams{Name: "echo", Arguments: facts{"text": text}}
	result, err := session.CallTool(context.Background(), params)
	if err != nil {
		return nil, err
	}
	return facts{"isError": result.IsError, "text": result.Content[0].(*mcp.TextContent).Text}, nil
}

// failure returns what a call ends with that fails or is refused; nil if it succeeds.
func failure(result facts, err error) any {
	if err != nil {
		return err.Error()
	}
	if result["isError"] == true {
		return result["text"]
	}
	return nil
}

// refusals is the scenario of refusals that the gateway gives from the headers alone.
func refusals(client *mcp.Client) {
	input := bufio.NewReader(os.Stdin)
	good := authorised{os.Getenv("MCP_TOKEN")}
	after := func(step string, session *mcp.ClientSession, err error) {
		if err != nil {
			log.Fatalf("failed to connect for the step %s: %v", step, err)
		}
		result, err := echo(session, "after")
		if err != nil {
			log.Fatalf("failed to call in the step %s: %v", step, err)
		}
		show(step, result)
	}
	session, err := connect(client, good)
	if err != nil {
		log.Fatalf("failed to connect: %v", err)
	}
	show("too-large", facts{"error": failure(echo(session, strings.Repeat("x", 1_000_000)))})
	after("after-too-large", session, nil)
	show("ready", nil)
	input.ReadString('\n')
	var refused any
	for refused == nil {
		refused = failure(echo(session, "flooded"))
	}
	show("flooded", facts{"error": refused})
	input.ReadString('\n')
	for failure(echo(session, "flooded")) != nil {
		time.Sleep(100 * time.Millisecond)
	}
	after("after-flooded", session, nil)
	_, err = connect(client, authorised{os.Getenv("MCP_EXPIRED")})
	show("expired", facts{"error": fmt.Sprint(err)})
	file := &fromFile{path: os.Getenv("MCP_TOKEN_FILE")}
	if err := file.read(); err != nil {
		log.Fatalf("failed to read the token: %v", err)
	}
	show("token-read", nil)
	input.ReadString('\n')
	session, err = connect(client, file)
	after("read-again", session, err)
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
	if os.Getenv("MCP_REFUSALS") != "" {
		refusals(client)
		return
	}
	session, err := connect(client, authorised{os.Getenv("MCP_TOKEN")})
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
		params := &mcp.CallToolParams{Name: "slow", Arguments: facts{"seconds": seconds}}
		if os.Getenv("MCP_LONG_PROGRESS") != "" {
			params.SetProgressToken("p")
		}
		result, err := call(ctx, params)
		if err != nil {
			log.Fatalf("failed to make a long call: %v", err)
		}
		lock.Lock()
		defer lock.Unlock()
		result["seen"] = len(seen)
		show("long", result)
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
