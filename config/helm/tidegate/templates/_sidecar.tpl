{{/*
For other charts: what a pod needs to have a sidecar. A chart that depends on this one gives each of them .Subcharts.tidegate:

  spec:
    terminationGracePeriodSeconds: {{ include "tidegate.terminationGracePeriodSeconds" .Subcharts.tidegate }}
    initContainers:
      {{- include "tidegate.initContainers" .Subcharts.tidegate | nindent 6 }}
    containers:
      - name: application
        env:
          {{- include "tidegate.applicationEnv" .Subcharts.tidegate | nindent 10 }}
        volumeMounts:
          {{- include "tidegate.applicationVolumeMounts" .Subcharts.tidegate | nindent 10 }}
      {{- include "tidegate.containers" .Subcharts.tidegate | nindent 6 }}
    volumes:
      {{- include "tidegate.volumes" .Subcharts.tidegate | nindent 6 }}

Each gives nothing where it has nothing to say, so all of them may stand there whatever the values are.
*/}}

{{/* The sidecar as an init container that goes on, where the cluster knows such. First in the list: what comes later may call models. */}}
{{- define "tidegate.initContainers" -}}
{{- if include "tidegate.isNative" . }}
{{- include "tidegate.container" (dict "context" . "kind" "native" "grace" (int .Values.terminationGracePeriodSeconds)) }}
{{- end }}
{{- end }}

{{/* The sidecar as a container beside the application, where the cluster does not. */}}
{{- define "tidegate.containers" -}}
{{- if not (include "tidegate.isNative" .) }}
{{- include "tidegate.container" (dict "context" . "kind" "beside" "grace" (int .Values.terminationGracePeriodSeconds)) }}
{{- end }}
{{- end }}

{{- define "tidegate.terminationGracePeriodSeconds" -}}
{{- int .Values.terminationGracePeriodSeconds }}
{{- end }}

{{/* Variables by which the application's calls come through the sidecar: what `tidegate env` prints, of which a test sees to it. */}}
{{- define "tidegate.applicationEnv" -}}
{{- if eq .Values.application.way "proxy" }}
{{- if not .Values.intercept.enabled }}
{{- fail "application.way is proxy, so set intercept.enabled" }}
{{- end }}
{{- $proxy := printf "http://127.0.0.1:%d" (int .Values.ports.proxy) }}
{{- range list "HTTPS_PROXY" "https_proxy" "HTTP_PROXY" "http_proxy" }}
- { name: {{ . }}, value: {{ $proxy | quote }} }
{{- end }}
{{- $direct := concat (list "localhost" "127.0.0.1" "::1" "169.254.169.254" "169.254.170.2" "169.254.170.23" "fd00:ec2::254" "metadata.google.internal" "metadata" "sts.amazonaws.com" "sts.googleapis.com" "kubernetes.default.svc") .Values.application.noProxy | join "," }}
{{- range list "NO_PROXY" "no_proxy" }}
- { name: {{ . }}, value: {{ $direct | quote }} }
{{- end }}
- { name: NODE_USE_ENV_PROXY, value: "1" }
{{- range list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "AWS_CA_BUNDLE" "CURL_CA_BUNDLE" "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" }}
- { name: {{ . }}, value: /var/lib/tidegate/bundle.pem }
{{- end }}
- { name: NODE_EXTRA_CA_CERTS, value: /var/lib/tidegate/ca.pem }
{{- else }}
{{- $known := dict
  "openai" (list "OPENAI_BASE_URL" "/v1")
  "azure-openai" (list "AZURE_OPENAI_ENDPOINT" "")
  "anthropic" (list "ANTHROPIC_BASE_URL" "")
  "anthropic-vertex" (list "ANTHROPIC_VERTEX_BASE_URL" "/v1")
  "anthropic-bedrock" (list "ANTHROPIC_BEDROCK_BASE_URL" "")
  "boto3" (list "AWS_ENDPOINT_URL_BEDROCK_RUNTIME" "")
  "google-genai" (list "GOOGLE_VERTEX_BASE_URL" "")
  "gemini" (list "GOOGLE_GEMINI_BASE_URL" "")
  "ollama" (list "OLLAMA_HOST" "") }}
{{- $base := printf "http://127.0.0.1:%d" (int .Values.ports.calls) }}
{{- range .Values.application.clients }}
{{- $variable := get $known . }}
{{- if not $variable }}
{{- fail (printf "application.clients: %s has no variable that names its URL; those that have one are %s" . (keys $known | sortAlpha | join ", ")) }}
{{- end }}
- { name: {{ first $variable }}, value: {{ printf "%s%s" $base (last $variable) | quote }} }
{{- end }}
{{- end }}
{{- end }}

{{/*
What the application must see of the sidecar: the certificates that it is to trust. A native sidecar is there before it, so that
single files can be mounted, and the authority's key is not in its sight.
*/}}
{{- define "tidegate.applicationVolumeMounts" -}}
{{- if eq .Values.application.way "proxy" }}
{{- if include "tidegate.isNative" . }}
- { name: tidegate-state, mountPath: /var/lib/tidegate/bundle.pem, subPath: bundle.pem, readOnly: true }
- { name: tidegate-state, mountPath: /var/lib/tidegate/ca.pem, subPath: ca.pem, readOnly: true }
{{- else }}
- { name: tidegate-state, mountPath: /var/lib/tidegate, readOnly: true }
{{- end }}
{{- end }}
{{- end }}
