// An HTTP service in the middle of a chain, traced by OpenTelemetry's Go SDK: it asks NEXT for the same path, and tells
// what came back beside its own span.
package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
)

func main() {
	tracer := trace.NewTracerProvider().Tracer("chain")
	headers := propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	http.HandleFunc("/", func(out http.ResponseWriter, in *http.Request) {
		remote := headers.Extract(in.Context(), propagation.HeaderCarrier(in.Header))
		context, span := tracer.Start(remote, "middle", api.WithSpanKind(api.SpanKindServer))
		defer span.End()
		call, _ := http.NewRequestWithContext(context, "GET", os.Getenv("NEXT")+in.URL.Path, nil)
		headers.Inject(context, propagation.HeaderCarrier(call.Header))
		answer, err := http.DefaultClient.Do(call)
		if err != nil {
			http.Error(out, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		next, _ := io.ReadAll(answer.Body)
		own := span.SpanContext()
		json.NewEncoder(out).Encode(map[string]interface{}{
			"trace_id": own.TraceID().String(), "span_id": own.SpanID().String(), "sampled": own.IsSampled(),
			"parent_id": api.SpanContextFromContext(remote).SpanID().String(), "tracestate": own.TraceState().String(),
			"user": baggage.FromContext(remote).Member("user").Value(), "next": string(next),
		})
	})
	http.ListenAndServe(os.Getenv("ADDRESS"), nil)
}
