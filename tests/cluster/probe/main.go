// Package main is the program that the node tests run in pods. It accepts connections, and opens
// connections on request.
package main

import (
	"encoding/json"
	"log"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// controlPort is the port for requests of the tests. These come from the node, which no policy
// can block.
const controlPort = ":7000"

// servedPorts are the ports that accept connections, and close them at once.
var servedPorts = []string{":8080", ":9090"}

// startReport counts the connections that were tried from the start of the program.
type startReport struct {
	Done      bool  `json:"done"`
	Attempts  int64 `json:"attempts"`
	Connected int64 `json:"connected"`
}

func main() {
	var attempts, connected atomic.Int64
	var done atomic.Bool
	if address := os.Getenv("DIAL_AT_START"); address != "" {
		go func() {
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
				attempts.Add(1)
				if dial(address, 20*time.Millisecond) == nil {
					connected.Add(1)
				}
			}
			done.Store(true)
		}()
	}
	for _, port := range servedPorts {
		listener, err := net.Listen("tcp", port)
		if err != nil {
			log.Fatal(err)
		}
		go accept(listener)
	}
	http.HandleFunc("/dial", func(writer http.ResponseWriter, request *http.Request) {
		if err := dial(request.FormValue("address"), 400*time.Millisecond); err != nil {
			http.Error(writer, err.Error(), http.StatusBadGateway)
		}
	})
	http.HandleFunc("/start", func(writer http.ResponseWriter, _ *http.Request) {
		report := startReport{done.Load(), attempts.Load(), connected.Load()}
		if err := json.NewEncoder(writer).Encode(report); err != nil {
			log.Print(err)
		}
	})
	log.Fatal(http.ListenAndServe(controlPort, nil))
}

func dial(address string, timeout time.Duration) error {
	connection, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return err
	}
	return connection.Close()
}

func accept(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		connection.Close()
	}
}
