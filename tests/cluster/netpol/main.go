package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

func main() {
	if os.Getenv("CNI_COMMAND") == "ADD" {
		var c struct {
			PrevResult json.RawMessage `json:"prevResult"`
		}
		b, _ := io.ReadAll(os.Stdin)
		json.Unmarshal(b, &c)
		fmt.Println(string(c.PrevResult))
		return
	}
	if os.Getenv("CNI_COMMAND") != "" {
		return
	}
	select {}
}
