// As chain_middle.go, traced by Zipkin's Go library, which speaks B3 in several headers.
package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"

	"github.com/openzipkin/zipkin-go"
	"github.com/openzipkin/zipkin-go/propagation/b3"
	"github.com/openzipkin/zipkin-go/reporter"
)

func main() {
	tracer, err := zipkin.NewTracer(reporter.NewNoopReporter(), zipkin.WithSharedSpans(false), zipkin.WithTraceID128Bit(true))
	if err != nil {
		panic(err)
	}
	http.HandleFunc("/", func(out http.ResponseWriter, in *http.Request) {
		remote := tracer.Extract(b3.ExtractHTTP(in))
		span := tracer.StartSpan("middle", zipkin.Parent(remote))
		defer span.Finish()
		own := span.Context()
		call, _ := http.NewRequest("GET", os.Getenv("NEXT")+in.URL.Path, nil)
		b3.InjectHTTP(call)(own)
		answer, err := http.DefaultClient.Do(call)
		if err != nil {
			http.Error(out, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		next, _ := io.ReadAll(answer.Body)
		json.NewEncoder(out).Encode(map[string]interface{}{
			"trace_id": own.TraceID.String(), "span_id": own.ID.String(), "sampled": own.Sampled,
			"parent_id": remote.ID.String(), "next": string(next),
		})
	})
	http.ListenAndServe(os.Getenv("ADDRESS"), nil)
}
